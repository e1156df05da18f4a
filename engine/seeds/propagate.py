"""Last final masks moved into the newest frame, as candidates that die unless something fresh confirms them."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from engine.select.compiled import compiled

UNCONFIRMED_LIFE_FRAMES = 8
"""Processed frames after its latest confirmation in which a propagated mask is no candidate any more."""

_LONGEST_CHAIN = 32
"""Flows kept for masks that wait for their commit; beyond, a warp would be worth nothing."""

_SOFT_LIMIT = np.float32(6.0)


@dataclass(frozen=True, slots=True)
class Propagated:
    """One mask carried into the newest frame.

    Attributes:
        identity: object it belongs to.
        logits: float32 [h, w], positive inside.
        base: the score it last had as a fresh candidate.
        confirmed: step in which something other than the past last saw it.
    """

    identity: int
    logits: np.ndarray
    base: float
    confirmed: int

    def score(self, step: int, share: float) -> float:
        """Its score in the frame of `step`: `share` of the base, falling to 0 over its unconfirmed life."""
        return self.base * share * max(0.0, 1.0 - (step - self.confirmed) / UNCONFIRMED_LIFE_FRAMES)


@dataclass(slots=True)
class _Anchor:
    """Where an object was in the latest final frame, and the step in which something else last said so."""

    logits: np.ndarray
    score: float
    confirmed: int


@dataclass(frozen=True, slots=True)
class _Chain:
    """Flows of several frames as one.

    Attributes:
        position: float32 [2, h, w], where each pixel of the last frame was in the first one.
        common_x, common_y: median displacement, the camera's share of it.
    """

    position: np.ndarray
    common_x: float
    common_y: float


class Propagator:
    """Holds the last final mask of each object and the flows since; steps count processed frames."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget masks and flows."""
        self._anchors: dict[int, _Anchor] = {}
        self._flows: dict[int, np.ndarray] = {}
        self._anchor_step = -1

    def candidates(self, step: int, flow: np.ndarray | None) -> list[Propagated]:
        """Every living mask in the frame of `step`, best score first.

        Args:
            step: number of this frame, one more than at the previous call.
            flow: float32 [2, h, w], backward; without it the past cannot be carried on and is forgotten.
        """
        if flow is None:
            self.reset()
            return []
        self._flows[step] = flow
        while len(self._flows) > _LONGEST_CHAIN:
            del self._flows[min(self._flows)]
        self._bury(step)
        chain = self._chain(self._anchor_step, step) if self._anchors else None
        if chain is None:
            return []
        found = [
            Propagated(identity, _warp(anchor.logits, chain), anchor.score, anchor.confirmed)
            for identity, anchor in self._anchors.items()
        ]
        return sorted(found, key=lambda item: -item.score(step, 1.0))

    def confirm(self, identity: int, step: int) -> None:
        """Something other than the past saw this object in frame `step`."""
        if identity in self._anchors:
            self._anchors[identity].confirmed = max(self._anchors[identity].confirmed, step)

    def commit(self, step: int, seen: dict[int, tuple[np.ndarray, float, int]]) -> None:
        """The final masks of a frame; objects it does not show are carried along to it.

        Args:
            step: of the frame, ascending; frames in between that were never committed are bridged.
            seen: per object its logits float32 [h, w], score, and the step of its latest confirmation.
        """
        absent = {identity: anchor for identity, anchor in self._anchors.items() if identity not in seen}
        chain = self._chain(self._anchor_step, step) if absent else None
        for identity, anchor in absent.items():
            if chain is None:
                del self._anchors[identity]
            else:
                anchor.logits = _warp(anchor.logits, chain)
        for identity, (logits, score, confirmed) in seen.items():
            before = self._anchors.get(identity)
            latest = confirmed if before is None else max(confirmed, before.confirmed)
            self._anchors[identity] = _Anchor(np.clip(logits, -_SOFT_LIMIT, _SOFT_LIMIT), score, latest)
        self._anchor_step = step
        self._bury(step)
        self._flows = {key: flow for key, flow in self._flows.items() if key > step}

    def _bury(self, step: int) -> None:
        for identity, anchor in list(self._anchors.items()):
            if step - anchor.confirmed >= UNCONFIRMED_LIFE_FRAMES:
                del self._anchors[identity]

    def _chain(self, start: int, end: int) -> _Chain | None:
        """Flows from frame `start` to frame `end`; None where one is missing."""
        h, w = next(iter(self._anchors.values())).logits.shape
        grid = _grid(h, w)
        position = grid.copy()
        for step in range(end, start, -1):
            flow = self._flows.get(step)
            if flow is None:
                return None
            position += flow if step == end else _sample(flow, position, cv2.BORDER_REPLICATE)
        sample = (position - grid)[:, ::4, ::4].reshape(2, -1)
        return _Chain(position, float(np.median(sample[0])), float(np.median(sample[1])))


@lru_cache(maxsize=4)
def _grid(h: int, w: int) -> np.ndarray:
    """Own coordinates (x, y) of every pixel, float32 [2, h, w]; not to be written to."""
    return np.mgrid[0:h, 0:w][::-1].astype(np.float32)


def _warp(logits: np.ndarray, chain: _Chain) -> np.ndarray:
    """Soft mask at fractional positions; what comes from outside the frame is outside the mask.

    Ground that an object uncovers has no past. Its backward flow, that of the background, points at where the
    object was, and would leave a trail of it. The object's own pixels claim the same source, though: where two
    do, the one that moves less against the frame's common motion is dropped.
    """
    position = chain.position
    moved: np.ndarray = _sample(logits[None], position, cv2.BORDER_CONSTANT)[0]
    h, w = moved.shape
    _drop_trail(moved.reshape(-1), position.reshape(2, -1), h, w, chain.common_x, chain.common_y, float(-_SOFT_LIMIT))
    return moved


@compiled
def _drop_trail(
    logits: np.ndarray, position: np.ndarray, h: int, w: int, common_x: float, common_y: float, outside: float
) -> None:
    """Put pixels outside the mask whose source a pixel claims that is faster by more than one pixel."""
    fastest = np.zeros(h * w, np.float32)
    speed = np.zeros(h * w, np.float32)
    source = np.zeros(h * w, np.int64)
    for i in range(h * w):
        if logits[i] > 0:
            # Inside the mask, hence inside the frame: what comes from elsewhere is outside the mask.
            x, y = position[0, i], position[1, i]
            column, row = min(max(int(x + 0.5), 0), w - 1), min(max(int(y + 0.5), 0), h - 1)
            source[i] = row * w + column
            speed[i] = np.sqrt((x - i % w - common_x) ** 2 + (y - i // w - common_y) ** 2)
            fastest[source[i]] = max(fastest[source[i]], speed[i])
    for i in range(h * w):
        if logits[i] > 0 and fastest[source[i]] > speed[i] + np.float32(1.0):
            logits[i] = outside


def _sample(planes: np.ndarray, position: np.ndarray, border: int) -> np.ndarray:
    """Bilinear values float32 [C, h, w] of planes [C, h, w] at positions [2, h, w]."""
    out = np.empty((len(planes), *position.shape[1:]), np.float32)
    outside = float(-_SOFT_LIMIT)
    for plane, target in zip(planes, out, strict=True):
        cv2.remap(plane, position[0], position[1], cv2.INTER_LINEAR, target, borderMode=border, borderValue=outside)
    return out
