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
        reach: largest displacement along either axis, in pixels.
    """

    position: np.ndarray
    common_x: float
    common_y: float
    reach: float


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
        moved = _warp([anchor.logits for anchor in self._anchors.values()], chain)
        found = [
            Propagated(identity, logits, anchor.score, anchor.confirmed)
            for (identity, anchor), logits in zip(self._anchors.items(), moved, strict=True)
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
        if chain is None:
            for identity in absent:
                del self._anchors[identity]
        else:
            moved = _warp([anchor.logits for anchor in absent.values()], chain)
            for anchor, logits in zip(absent.values(), moved, strict=True):
                anchor.logits = logits
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
            position += flow if step == end else _sample(flow, position)
        displacement = position - grid
        common_x, common_y = np.median(displacement[:, ::4, ::4].reshape(2, -1), axis=1).tolist()
        return _Chain(position, common_x, common_y, float(np.abs(displacement).max()))


@lru_cache(maxsize=4)
def _grid(h: int, w: int) -> np.ndarray:
    """Own coordinates (x, y) of every pixel, float32 [2, h, w]; not to be written to."""
    return np.mgrid[0:h, 0:w][::-1].astype(np.float32)


def _warp(logits: list[np.ndarray], chain: _Chain) -> list[np.ndarray]:
    """Soft masks at fractional positions; what comes from outside the frame is outside the mask.

    Ground that an object uncovers has no past. Its backward flow, that of the background, points at where the
    object was, and would leave a trail of it. The object's own pixels claim the same source, though: where two
    do, the one that moves less against the frame's common motion is dropped.
    """
    # Bounded copies: an array of all would stay alive as long as one of its masks does.
    return [
        _carry(plane, chain.position, chain.common_x, chain.common_y, chain.reach, -_SOFT_LIMIT) for plane in logits
    ]


@compiled
def _carry(
    logits: np.ndarray, position: np.ndarray, common_x: float, common_y: float, reach: float, border: np.float32
) -> np.ndarray:
    """Bilinear values of logits [h, w] at positions [2, h, w], without the trail."""
    h, w = logits.shape
    moved = np.full((h, w), border, np.float32)
    top, bottom, left, right = h, -1, w, -1
    for y in range(h):
        for x in range(w):
            if logits[y, x] > border:
                top, bottom = min(top, y), max(bottom, y)
                left, right = min(left, x), max(right, x)
    fastest = np.zeros(h * w, np.float32)
    margin = int(min(reach, h + w)) + 2
    first_y, last_y = max(top - margin, 0), min(bottom + margin + 1, h)
    first_x, last_x = max(left - margin, 0), min(right + margin + 1, w)
    for y in range(first_y, last_y):
        for x in range(first_x, last_x):
            px, py = position[0, y, x], position[1, y, x]
            # Beyond one pixel around the mask every corner is outside; also true of positions that are no number.
            if not (left - 1 < px < right + 1 and top - 1 < py < bottom + 1):
                continue
            x0, y0 = int(np.floor(px)), int(np.floor(py))
            fx, fy = px - np.float32(x0), py - np.float32(y0)
            a = logits[y0, x0] if x0 >= 0 and y0 >= 0 else border
            b = logits[y0, x0 + 1] if x0 + 1 < w and y0 >= 0 else border
            c = logits[y0 + 1, x0] if x0 >= 0 and y0 + 1 < h else border
            d = logits[y0 + 1, x0 + 1] if x0 + 1 < w and y0 + 1 < h else border
            value = (a + (b - a) * fx) * (np.float32(1.0) - fy) + (c + (d - c) * fx) * fy
            moved[y, x] = value
            if value > 0:
                source = _source(px, py, h, w)
                fastest[source] = max(fastest[source], _speed(px, py, x, y, common_x, common_y))
    for y in range(first_y, last_y):
        for x in range(first_x, last_x):
            if moved[y, x] > 0:
                px, py = position[0, y, x], position[1, y, x]
                # Another pixel claims the source, faster by more than one pixel.
                if fastest[_source(px, py, h, w)] > _speed(px, py, x, y, common_x, common_y) + np.float32(1.0):
                    moved[y, x] = border
    return moved


@compiled
def _source(px: float, py: float, h: int, w: int) -> int:
    """Index of the pixel nearest to a position."""
    return min(max(int(py + 0.5), 0), h - 1) * w + min(max(int(px + 0.5), 0), w - 1)


@compiled
def _speed(px: float, py: float, x: int, y: int, common_x: float, common_y: float) -> np.float32:
    """How far a pixel came against the frame's common motion."""
    return np.float32(np.sqrt((px - x - common_x) ** 2 + (py - y - common_y) ** 2))


def _sample(planes: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Bilinear values float32 [C, h, w] of planes [C, h, w] at positions [2, h, w], the border going on for ever."""
    out = np.empty((len(planes), *position.shape[1:]), np.float32)
    for plane, target in zip(planes, out, strict=True):
        cv2.remap(plane, position[0], position[1], cv2.INTER_LINEAR, target, borderMode=cv2.BORDER_REPLICATE)
    return out
