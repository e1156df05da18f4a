"""All prompted objects of a stream: before each selection they join the candidates, after it they keep their ids."""

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import UsageError
from engine.percepts import Percepts
from engine.prompts.affinity import frame_features
from engine.prompts.config import PromptsConfig
from engine.prompts.pointing import labels_of_box, labels_of_mask, labels_of_point
from engine.prompts.prompt import Prompt, Sight
from engine.track import Track

_LOWEST_SCORE, _SCORE_RANGE = 0.9, 0.09
"""Score of a prompted mask: at 0.9 it is worth taking even where the background map is sure of background."""

_SAME_OBJECT = 0.5
"""Overlap from which a selected mask stands for the prompted one."""

_LONGEST_WAIT = 256
"""Frames whose pins wait for a commit."""


@dataclass(frozen=True, slots=True)
class _Recent:
    """A frame that may still be pointed at."""

    frame_index: int
    percepts: Percepts
    frame_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Pin:
    """Where a prompted object is in one frame; `member` is its own candidate, None where it came too late."""

    mask: np.ndarray
    member: int | None


class Prompts:
    """State: one `Prompt` per object, the frames that may still be pointed at, and pins of undecided frames.

    Args:
        config: every knob.
    """

    def __init__(self, config: PromptsConfig) -> None:
        self._config = config
        self.objects: dict[int, Prompt] = {}
        self._recent: deque[_Recent] = deque(maxlen=config.recent_frames)
        self._pins: dict[int, dict[int, _Pin]] = {}

    @property
    def room(self) -> int:
        """How many more objects may be followed."""
        return self._config.objects - len(self.objects)

    def reset(self) -> None:
        """Forget every object and frame (another source)."""
        self.objects.clear()
        self._recent.clear()
        self._pins.clear()

    def track(
        self,
        identity: int,
        mask: np.ndarray | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        frame_index: int | None = None,
    ) -> int:
        """Follow one object from now on; give one of mask, box and point.

        Args:
            identity: the id it will have.
            mask: bool [H, W].
            box: (x0, y0, x1, y1), half-open.
            point: (x, y).
            frame_index: the frame meant, among the latest few; None for the newest.

        Returns:
            Index of the frame meant.

        Raises:
            UsageError: none or several of them, no frame yet, a frame that is gone, too many objects, or a prompt
                that does not fit the frame.
        """
        given = [name for name, value in (("mask", mask), ("box", box), ("point", point)) if value is not None]
        if len(given) != 1:
            raise UsageError(f"track: got {' and '.join(given) or 'nothing'}; give one of mask, box, point")
        if self.room <= 0:
            raise UsageError(f"track: {len(self.objects)} objects are followed already, the most; untrack one first")
        frames = self._since(frame_index)
        recent = frames[0]
        sight = self._sight(recent)
        if mask is not None:
            labels = labels_of_mask(mask, recent.frame_size, recent.percepts.background.shape)
        elif box is not None:
            labels = labels_of_box(box, recent.frame_size, recent.percepts, sight.features)
        else:
            assert point is not None
            labels = labels_of_point(point, recent.frame_size, recent.percepts, sight.features)
        prompt = Prompt(identity, sight, labels, self._config)
        self._pin(recent.frame_index, identity, labels, None)
        for later in frames[1:]:
            carried = prompt.step(self._sight(later))
            if carried is not None:
                self._pin(later.frame_index, identity, carried, None)
        self.objects[identity] = prompt
        return recent.frame_index

    def untrack(self, identity: int) -> None:
        """Let an object go; frames not final yet still show it under its pinned id.

        Raises:
            UsageError: an id that is not followed.
        """
        if identity not in self.objects:
            known = ", ".join(map(str, self.objects)) or "none"
            raise UsageError(f"untrack {identity}: not followed (followed: {known})")
        del self.objects[identity]

    def step(self, percepts: Percepts, frame_index: int, frame_size: tuple[int, int]) -> Percepts:
        """Percepts of the newest frame with one candidate per prompted object in sight, after the others."""
        recent = _Recent(frame_index, percepts, frame_size)
        self._recent.append(recent)
        if not self.objects:
            return percepts
        start = time.perf_counter()
        sight = self._sight(recent)
        found: list[tuple[np.ndarray, float]] = []
        for prompt in self.objects.values():
            labels = prompt.step(sight)
            if labels is not None:
                self._pin(frame_index, prompt.identity, labels, len(percepts.masks) + len(found))
                found.append((labels, _LOWEST_SCORE + _SCORE_RANGE * prompt.certainty))
        if found:
            percepts = _joined(percepts, found)
        timing = {**percepts.timing_ms, "prompts": (time.perf_counter() - start) * 1e3}
        return dataclasses.replace(percepts, timing_ms=timing)

    def pinned(self, frame_index: int, masks: np.ndarray, members: tuple[int, ...], tracks: list[Track]) -> list[Track]:
        """`tracks` with the pinned id on each selected mask that is a prompted object, or overlaps it best.

        Args:
            frame_index: capture index.
            masks: bool [N, h, w], all candidates of the frame.
            members: the selected ones.
            tracks: one per member; not changed.
        """
        pins = self._pins.get(frame_index)
        if not pins or not members:
            return tracks
        result = list(tracks)
        free = dict(enumerate(members))
        for identity, pin in pins.items():
            place = next((i for i, member in free.items() if member == pin.member), None)
            if place is None and free:
                overlap = {i: _overlap(masks[member], pin.mask) for i, member in free.items()}
                place = max(overlap, key=lambda i: overlap[i])
                if overlap[place] < _SAME_OBJECT:
                    place = None
            if place is None:
                continue
            del free[place]
            track = tracks[place]
            # Its own value in label maps as long as there is one for it.
            taken = identity > 0xFFFF or any(identity == other.label for other in result)
            born = min(self._born(identity, frame_index), frame_index)
            result[place] = dataclasses.replace(track, id=identity, label=track.label if taken else identity, born=born)
        return result

    def settle(self, frame_index: int) -> None:
        """Frames up to this one are final."""
        if self._pins:
            self._pins = {key: pins for key, pins in self._pins.items() if key > frame_index}

    def _born(self, identity: int, frame_index: int) -> int:
        prompt = self.objects.get(identity)
        return frame_index if prompt is None else prompt.born

    def _since(self, frame_index: int | None) -> list[_Recent]:
        """The frame meant and those after it."""
        if not self._recent:
            raise UsageError("track: no frame yet; step at least one frame first")
        if frame_index is None:
            return [self._recent[-1]]
        indices = [recent.frame_index for recent in self._recent]
        if frame_index not in indices:
            raise UsageError(f"track frame_index={frame_index}: kept are frames {indices[0]} to {indices[-1]}")
        return list(self._recent)[indices.index(frame_index) :]

    def _sight(self, recent: _Recent) -> Sight:
        return Sight(recent.frame_index, recent.percepts, frame_features(recent.percepts, self._config))

    def _pin(self, frame_index: int, identity: int, labels: np.ndarray, member: int | None) -> None:
        self._pins.setdefault(frame_index, {})[identity] = _Pin(labels > 0.5, member)
        if len(self._pins) > _LONGEST_WAIT:
            del self._pins[min(self._pins)]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool [h, w]."""
    return float((a & b).sum()) / max(float((a | b).sum()), 1.0)


def _joined(percepts: Percepts, found: list[tuple[np.ndarray, float]]) -> Percepts:
    """Percepts with soft labels float32 [h, w] and their scores as further candidates."""
    soft = np.clip(np.stack([labels for labels, _ in found]), 0.0025, 0.9975).astype(np.float32)
    logits = np.log(soft / (1.0 - soft))
    masks = logits > 0
    scores = np.array([score for _, score in found], np.float32)
    return dataclasses.replace(
        percepts,
        masks=np.concatenate([percepts.masks, masks]),
        scores=np.concatenate([_yielding(percepts, masks), scores]),
        logits=np.concatenate([percepts.logits, logits]),
    )


def _yielding(percepts: Percepts, prompted: np.ndarray) -> np.ndarray:
    """Scores of the candidates, without those that take most of a prompted mask or lie mostly inside it.

    They exclude it anyway; a whole of which the prompt wants a part would otherwise win by its size.
    """
    if not len(percepts.masks):
        return percepts.scores
    own = percepts.masks.reshape(len(percepts.masks), -1).astype(np.float32)
    wanted = prompted.reshape(len(prompted), -1).astype(np.float32)
    shared = own @ wanted.T
    least = np.minimum(own.sum(axis=1)[:, None], wanted.sum(axis=1)[None])
    rival = (shared > 0.5 * np.maximum(least, 1.0)).any(axis=1)
    scores: np.ndarray = np.where(rival, np.float32(0.0), percepts.scores)
    return scores
