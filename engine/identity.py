"""Persistent identities: which committed mask is the object we saw before.

The selection deliberately does not track. Here each frame's chosen masks are assigned to known
objects by overlap with their flow-warped past and by appearance; ids are never reused.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from engine.config import IdentityConfig
from engine.percepts import Percepts
from engine.select.warp import source_pixels


@dataclass
class Track:
    """One remembered object.

    Attributes:
        id: identity.
        born, seen: frame indices of the first and the latest sighting.
        mask: bool [h, w], where it was last, carried along by the flow while it is missing.
        appearance: float32 [E] smoothed mean embedding, or None without embeddings.
        foreground: smoothed mean foreground probability in [0, 1].
        score: the detector's score in the latest sighting.
        label: pixel value in label maps.
    """

    id: int
    born: int
    seen: int
    mask: np.ndarray
    appearance: np.ndarray | None
    foreground: float
    score: float
    label: int


@dataclass
class IdAllocator:
    """Hands out ids that are never reused, and remembers those given to masks not yet final.

    A provisional walk over the window meets the same newborn mask in every frame until it is final;
    `(frame, member)` names it, so that it keeps one id.
    """

    next_id: int = 1
    pending: dict[tuple[int, int], int] = field(default_factory=dict)

    def newborn(self, frame_index: int, member: int) -> int:
        """Id of the object first seen as candidate `member` of frame `frame_index`."""
        key = (frame_index, member)
        if key not in self.pending:
            self.pending[key] = self.next_id
            self.next_id += 1
        return self.pending[key]

    def settle(self, frame_index: int) -> None:
        """Frames up to `frame_index` are final: their newborn keys will not be asked for again."""
        self.pending = {key: value for key, value in self.pending.items() if key[0] > frame_index}


class IdentityBook:
    """Known objects after the latest frame it was shown.

    Args:
        config: thresholds.
        allocator: shared with copies of this book that look ahead.
    """

    def __init__(self, config: IdentityConfig, allocator: IdAllocator | None = None) -> None:
        self._config = config
        self._allocator = allocator or IdAllocator()
        self._tracks: list[Track] = []
        self._latest_index = -1

    def reset(self) -> None:
        """Forget every object; ids go on from where they were."""
        self._tracks = []

    def look_ahead(self) -> "IdentityBook":
        """A copy that may be stepped over frames that are not final yet."""
        book = IdentityBook(self._config, self._allocator)
        book._tracks = [copy.copy(track) for track in self._tracks]
        book._latest_index = self._latest_index
        return book

    def step(self, frame_index: int, percepts: Percepts, members: tuple[int, ...]) -> list[Track]:
        """Assign the chosen masks of the next frame.

        Similarity is overlap with the warped past (intersection over union, or most of the smaller one
        inside the larger when a blob splits or merges) blended with appearance; Hungarian assignment.

        Args:
            frame_index: capture index of the frame.
            percepts: its candidates and flow.
            members: indices of the chosen candidates.

        Returns:
            One track per member, in the order of `members`.
        """
        masks = percepts.masks[list(members)]
        appearances = [_appearance(percepts.embedding, mask) for mask in masks]
        oldest = frame_index - self._config.forget_after_frames
        self._tracks = [track for track in self._tracks if track.seen >= oldest]
        self._warp(percepts.flow)
        assigned: dict[int, Track] = {}
        if len(members) and self._tracks:
            cost = -self._similarity(masks, appearances)
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if -cost[row, column] >= self._config.min_similarity:
                    assigned[int(row)] = self._tracks[int(column)]
        probability = 1.0 - percepts.background
        result = []
        for i, member in enumerate(members):
            foreground = float(probability[masks[i]].mean()) if masks[i].any() else 0.0
            track = assigned.get(i)
            if track is None:
                track = self._newborn(frame_index, member, masks[i], appearances[i], foreground)
            self._update(track, frame_index, masks[i], appearances[i], foreground, percepts.scores[member])
            result.append(track)
        self._latest_index = frame_index
        return [copy.copy(track) for track in result]

    def settle(self, frame_index: int) -> None:
        """Frames up to this one are final."""
        self._allocator.settle(frame_index)

    def _newborn(
        self,
        frame_index: int,
        member: int,
        mask: np.ndarray,
        appearance: np.ndarray | None,
        foreground: float,
    ) -> Track:
        identity = self._allocator.newborn(frame_index, member)
        used = {track.label for track in self._tracks}
        label = identity if identity <= 0xFFFF else next(v for v in range(1, 0x10000) if v not in used)
        track = Track(identity, frame_index, frame_index, mask, appearance, foreground, 0.0, label)
        self._tracks.append(track)
        return track

    def _update(
        self,
        track: Track,
        frame_index: int,
        mask: np.ndarray,
        appearance: np.ndarray | None,
        foreground: float,
        score: float,
    ) -> None:
        rate = self._config.smoothing
        track.seen = frame_index
        track.mask = mask
        track.score = float(score)
        track.foreground += rate * (foreground - track.foreground)
        if appearance is not None and track.appearance is not None:
            track.appearance = (1 - rate) * track.appearance + rate * appearance

    def _warp(self, flow: np.ndarray | None) -> None:
        """Carry remembered masks into the new frame: backward flow makes this a plain gather."""
        if flow is None or not self._tracks:
            return
        source = source_pixels(flow)
        outside = source < 0
        for track in self._tracks:
            moved = track.mask.reshape(-1)[source]
            moved[outside] = False
            # Flow that is not its own must not wipe out an object that only stopped or hides.
            if moved.any():
                track.mask = moved.reshape(track.mask.shape)

    def _similarity(self, masks: np.ndarray, appearances: list[np.ndarray | None]) -> np.ndarray:
        """float64 [members, tracks] in [0, 1]; tracks away for a while are matched on appearance alone."""
        past = np.stack([track.mask for track in self._tracks])
        a = masks.reshape(len(masks), -1).astype(np.float32)
        b = past.reshape(len(past), -1).astype(np.float32)
        inter = a @ b.T
        area_a, area_b = a.sum(axis=1)[:, None], b.sum(axis=1)[None]
        iou = inter / np.maximum(area_a + area_b - inter, 1.0)
        inside = inter / np.maximum(np.minimum(area_a, area_b), 1.0)
        overlap = np.maximum(iou, 0.5 * inside)
        similarity = overlap.astype(np.float64)
        weight = self._config.embedding_weight
        for j, track in enumerate(self._tracks):
            away = track.seen < self._latest_index
            for i, appearance in enumerate(appearances):
                if appearance is None or track.appearance is None:
                    continue
                alike = embedding_similarity(appearance, track.appearance)
                if overlap[i, j] > 0:
                    similarity[i, j] = (1 - weight) * overlap[i, j] + weight * alike
                elif away and alike >= self._config.recall_similarity:
                    # Just acceptable at the recall limit: any real overlap goes first.
                    similarity[i, j] = self._config.min_similarity * alike / self._config.recall_similarity
                else:
                    similarity[i, j] = 0.0
        return similarity


def embedding_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """R = 2 / (1 + exp ||a - b||^2) in (0, 1] (Eq. 1 of Seeds), the measure the embedding was trained for."""
    # Beyond 50 the similarity is zero to any use, and exp would overflow further on.
    return 2.0 / (1.0 + float(np.exp(min(float(np.sum((a - b) ** 2)), 50.0))))


def _appearance(embedding: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
    """Mean embedding of a mask, float32 [E]."""
    if embedding is None or not mask.any():
        return None
    mean: np.ndarray = embedding[:, mask].mean(axis=1)
    return mean
