"""One object a robot pointed at: carried by affinity, lost behind others, found again by its looks."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from engine.appearance import HISTOGRAM_SIZE, AppearanceMemory, looks_of
from engine.percepts import Percepts
from engine.prompts.affinity import Past, nearest, propagate
from engine.prompts.config import PromptsConfig

_MEMORY_RADIUS_PX, _MEMORY_STRIDE_PX = 4, 2
"""Window in remembered frames: the object is aligned by place and size only, hence wide and sparse."""

_FIRST_SHARE, _LATER_SHARE = 2.0, 0.5
"""Of remembered frames, against the previous one: only the first is known to be right."""

_LOOKS = 8
_SAMPLES = 24
_MIN_AREA_PX = 4
_ALIKE = 4.0
"""Squared feature distance up to which a pixel may be the object's, wherever it is."""

_SMOOTHING = 0.05
"""Of the usual area: slow, so that hiding behind something for a second does not make an object small."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One frame as prompts see it, shared by all of them.

    Attributes:
        frame_index: capture index.
        percepts: with the candidates the network and the proposers gave.
        features: float32 [h, w, F], see `frame_features`.
    """

    frame_index: int
    percepts: Percepts
    features: np.ndarray


@dataclass(frozen=True, slots=True)
class _Remembered:
    """One frame of the memory: where the object was, and how large."""

    frame_index: int
    features: np.ndarray
    labels: np.ndarray
    place: np.ndarray
    area: float


class Prompt:
    """State: the latest labels, a bounded memory of earlier frames and looks, and where others alike are.

    Args:
        identity: the pinned id.
        sight: the frame that was pointed at.
        labels: float32 [h, w] in [0, 1], the object in it; at least one pixel above one half.
        config: every knob.
    """

    def __init__(self, identity: int, sight: Sight, labels: np.ndarray, config: PromptsConfig) -> None:
        self.identity = identity
        self.born = sight.frame_index
        self._config = config
        self._latest: Sight | None = sight
        self._labels = labels
        self._area = float(labels.sum())
        self._place = _centre(labels)
        self._seen = sight.frame_index
        self._memory = [_remember(sight, labels)]
        self._looks = AppearanceMemory(np.empty((0, HISTOGRAM_SIZE), np.float32), _LOOKS)
        self._learn_look(sight, labels)
        self._twins: np.ndarray | None = None
        self.certainty = 1.0

    @property
    def lost(self) -> bool:
        """Whether the object is out of sight."""
        return self._latest is None

    @property
    def memory_frames(self) -> list[int]:
        """Indices of the frames in the memory, ascending."""
        return [entry.frame_index for entry in self._memory]

    def step(self, sight: Sight) -> np.ndarray | None:
        """The object in the next frame: float32 [h, w] in [0, 1], or None while it is out of sight."""
        labels = None
        if self._latest is not None and sight.percepts.flow is not None:
            labels = self._carry(self._latest, sight)
        if labels is None:
            labels = self._recall(sight)
        else:
            self._area += _SMOOTHING * (float(labels.sum()) - self._area)
            self._learn(sight, labels)
        if labels is None:
            self._latest = None
            return None
        self._latest, self._labels, self._seen = sight, labels, sight.frame_index
        self._place = _centre(labels)
        return labels

    def _carry(self, before: Sight, sight: Sight) -> np.ndarray | None:
        config, flow = self._config, sight.percepts.flow
        assert flow is not None
        position = _grid(*flow.shape[1:]) + np.nan_to_num(flow)
        warped = cv2.remap(self._labels, position[0], position[1], cv2.INTER_LINEAR)
        if float(warped.sum()) < _MIN_AREA_PX:
            return None
        # Only the surroundings of the border are in question; what is far inside or outside stays.
        reach = np.ones((2 * config.radius_px + 1, 2 * config.radius_px + 1), np.uint8)
        inside = cv2.erode((warped > 0.9).astype(np.uint8), reach, borderValue=1) > 0
        wanted = (cv2.dilate((warped > 0.05).astype(np.uint8), reach) > 0) & ~inside
        pasts = [Past(before.features, self._labels, position, config.radius_px)]
        place, area = _centre(warped), float(warped.sum())
        for entry in self._memory:
            # The usual size, not that of the visible part, or an object half hidden would seem far away.
            scale = np.float32(np.clip(np.sqrt(entry.area / max(area, 0.5 * self._area)), 0.5, 2.0))
            share = _FIRST_SHARE if entry is self._memory[0] else _LATER_SHARE
            moved = entry.place[:, None, None] + scale * (_grid(*warped.shape) - place[:, None, None])
            pasts.append(Past(entry.features, entry.labels, moved, _MEMORY_RADIUS_PX, _MEMORY_STRIDE_PX, share))
        labels = np.where(inside, warped, propagate(sight.features, pasts, wanted, config.nearness))
        labels = _without_crumbs(self._sharpened(labels, sight.percepts))
        mask = labels > 0.5
        area = float(mask.sum())
        if area < max(_MIN_AREA_PX, config.lost_share * self._area):
            return None
        self.certainty = float(np.clip(2.0 * labels[mask].mean() - 1.0, 0.0, 1.0))
        return labels

    def _sharpened(self, labels: np.ndarray, percepts: Percepts) -> np.ndarray:
        """Labels blended with the proposal that agrees best, if any does."""
        mask = labels > 0.5
        overlap = _overlaps(mask, percepts.masks)
        if not len(overlap) or overlap.max() < self._config.agreement:
            return labels
        share = np.float32(self._config.proposal_share)
        soft = 1.0 / (1.0 + np.exp(-np.clip(percepts.logits[int(overlap.argmax())], -6.0, 6.0)))
        blended: np.ndarray = (1 - share) * labels + share * soft.astype(np.float32)
        # A proposal may move the border, not add parts elsewhere.
        blended[cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0] = 0.0
        return blended

    def _learn(self, sight: Sight, labels: np.ndarray) -> None:
        """Remember a frame now and then, if the object is seen well in it."""
        config = self._config
        if sight.frame_index - self._memory[-1].frame_index < config.memory_every:
            return
        if self.certainty < 0.6 or not 0.6 <= float((labels > 0.5).sum()) / self._area <= 1.6:
            return
        if self._likeness(sight, (labels > 0.5)[None])[0] < config.recall_likeness:
            return
        self._learn_look(sight, labels)
        if config.memory == 1:
            return
        self._memory.append(_remember(sight, labels))
        if len(self._memory) > config.memory:
            # The one that leaves the smallest gap in time; never the prompt's own and never the newest.
            times = [entry.frame_index for entry in self._memory]
            gaps = [times[i + 1] - times[i - 1] for i in range(1, len(times) - 1)]
            del self._memory[1 + gaps.index(min(gaps)) if gaps else -1]

    def _recall(self, sight: Sight) -> np.ndarray | None:
        """The object where something looks like it, can have come there, and is nobody who was there before."""
        config, percepts = self._config, sight.percepts
        cut = percepts.flow is None
        if self._latest is not None:
            self._twins = self._others_alike(self._latest)
        self._carry_twins(percepts.flow)
        masks, soft, alike = self._alike(sight)
        if not len(masks):
            return None
        gap = sight.frame_index - self._seen
        distance = np.hypot(*(np.array([_centre(each) for each in soft]) - self._place).T)
        closeness = np.exp(-distance / (masks.shape[2] * (0.1 + 0.01 * gap)))
        likely = alike + (0.0 if cut else config.near_bonus) * closeness
        likely[~(cut | (distance <= config.pace * masks.shape[2] * gap + np.sqrt(self._area)))] = 0.0
        if self._twins is not None:
            likely[(masks & self._twins).sum(axis=(1, 2)) > 0.3 * masks.sum(axis=(1, 2))] = 0.0
        best = int(likely.argmax())
        if likely[best] < config.recall_likeness:
            return None
        self._twins = None
        self.certainty = float(alike[best])
        labels: np.ndarray = soft[best]
        return labels

    def _alike(self, sight: Sight) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Whatever may be the object by its size: masks bool and float32 [n, h, w], and likeness float32 [n]."""
        found = self._found_by_affinity(sight)
        soft = np.concatenate([sight.percepts.masks.astype(np.float32), found])
        masks = soft > 0.5
        areas = masks.sum(axis=(1, 2))
        low, high = self._config.recall_shares
        fits = (areas >= max(_MIN_AREA_PX, low * self._area)) & (areas <= high * self._area)
        return masks[fits], soft[fits], self._likeness(sight, masks[fits])

    def _others_alike(self, sight: Sight) -> np.ndarray | None:
        """bool [h, w]: what was as alike while the object itself was still in sight, hence is somebody else."""
        masks, _, alike = self._alike(sight)
        own = self._labels > 0.25
        apart = ~(masks & own).any(axis=(1, 2))
        others = masks[apart & (alike >= self._config.recall_likeness - self._config.near_bonus)]
        return np.logical_or.reduce(others, axis=0) if len(others) else None

    def _carry_twins(self, flow: np.ndarray | None) -> None:
        if flow is None:
            # After a cut nothing is where it was, twins neither.
            self._twins = None
        if self._twins is None or flow is None:
            return
        position = _grid(*flow.shape[1:]) + np.nan_to_num(flow)
        moved = cv2.remap(self._twins.astype(np.float32), position[0], position[1], cv2.INTER_LINEAR)
        self._twins = moved > 0.4

    def _found_by_affinity(self, sight: Sight) -> np.ndarray:
        """Blobs of pixels closer to the object's remembered ones than to its surroundings: float32 [n, h, w].

        On every second pixel: this says where to look, the next frame finds the border.
        """
        inner, outer = [], []
        ring = np.ones((9, 9), np.uint8)
        for entry in self._memory:
            mask = entry.labels > 0.5
            near = (cv2.dilate(mask.astype(np.uint8), ring) > 0) & (entry.labels < 0.1)
            inner.append(_sampled(entry.features[mask]))
            outer.append(_sampled(entry.features[near]))
        coarse = np.ascontiguousarray(sight.features[::2, ::2])
        flat = coarse.reshape(-1, coarse.shape[2])
        own = nearest(flat, np.concatenate(inner))
        alike = np.flatnonzero(own < _ALIKE)
        nearer = own[alike] < nearest(flat[alike], np.concatenate(outer))
        hit: np.ndarray = np.zeros(len(flat), np.uint8)
        hit[alike[nearer]] = 1
        hit = hit.reshape(coarse.shape[:2])
        count, components, stats, _ = cv2.connectedComponentsWithStats(hit, connectivity=4)
        h, w = sight.features.shape[:2]
        blobs = []
        for i in range(1, count):
            if 4.0 * stats[i, cv2.CC_STAT_AREA] >= self._config.recall_shares[0] * self._area:
                coarse_blob = (components == i).astype(np.float32)
                blobs.append(cv2.resize(coarse_blob, (w, h), interpolation=cv2.INTER_LINEAR))
        return np.stack(blobs) if blobs else np.empty((0, h, w), np.float32)

    def _likeness(self, sight: Sight, masks: np.ndarray) -> np.ndarray:
        """float32 [N]: how much the colours of each mask are the object's; 1 where colours are not known."""
        if sight.percepts.image is None or not len(self._looks.samples):
            return np.ones(len(masks), np.float32)
        return self._looks.likeness(looks_of(sight.percepts.image, masks))

    def _learn_look(self, sight: Sight, labels: np.ndarray) -> None:
        if sight.percepts.image is not None:
            self._looks = self._looks.with_look(looks_of(sight.percepts.image, (labels > 0.5)[None])[0])


@lru_cache(maxsize=4)
def _grid(h: int, w: int) -> np.ndarray:
    """Own coordinates (x, y) of every pixel, float32 [2, h, w]; not to be written to."""
    return np.mgrid[0:h, 0:w][::-1].astype(np.float32)


def _centre(labels: np.ndarray) -> np.ndarray:
    """Centre (x, y) of soft labels, float32 [2]."""
    x, y = _grid(*labels.shape)
    total = max(float(labels.sum()), 1e-6)
    return np.array([float((x * labels).sum()) / total, float((y * labels).sum()) / total], np.float32)


def _remember(sight: Sight, labels: np.ndarray) -> _Remembered:
    return _Remembered(sight.frame_index, sight.features, labels, _centre(labels), float(labels.sum()))


def _sampled(rows: np.ndarray) -> np.ndarray:
    """At most `_SAMPLES` of the rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // _SAMPLES))]


def _overlaps(mask: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of bool [h, w] with each of [N, h, w]: float64 [N]."""
    inter = (masks & mask).sum(axis=(1, 2))
    union = (masks | mask).sum(axis=(1, 2))
    overlap: np.ndarray = inter / np.maximum(union, 1)
    return overlap


def _without_crumbs(labels: np.ndarray) -> np.ndarray:
    """Labels without parts smaller than a fifth of the largest one: an object in pieces stays, noise goes."""
    count, components, stats, _ = cv2.connectedComponentsWithStats((labels > 0.5).astype(np.uint8), connectivity=8)
    if count <= 2:
        return labels
    areas = stats[1:, cv2.CC_STAT_AREA]
    crumbs = 1 + np.flatnonzero(areas < 0.2 * areas.max())
    out: np.ndarray = np.where(np.isin(components, crumbs), np.float32(0.0), labels)
    return out
