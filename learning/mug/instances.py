"""Instance-level read-out: proposals on the foreground, linked by overlap along the flow (MuG, section 3.3)."""

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from engine.percepts import Percepts

_ON_FOREGROUND = 0.5
"""Share of a proposal that must be foreground."""

_STILL_FREE = 0.5
"""Share of a proposal that better ones must leave to it."""

_SAME = 0.3
"""Least overlap with where an object moved to for a proposal to be it."""

_PATIENCE = 10
"""Frames after which an object that was not found is forgotten."""


def instances(masks: np.ndarray, scores: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Proposals that are foreground, without overlap, the better one in front.

    Args:
        masks: bool [N, h, w].
        scores: float32 [N].
        foreground: bool [h, w].

    Returns:
        bool [M, h, w], M <= N, the parts of the proposals that are foreground.
    """
    free, kept = foreground.copy(), []
    for index in np.argsort(-scores, kind="stable"):
        mask = masks[index]
        area, inside, left = (int(np.count_nonzero(m)) for m in (mask, mask & foreground, mask & free))
        if area and inside >= _ON_FOREGROUND * area and left >= max(1.0, _STILL_FREE * inside):
            kept.append(mask & free)
            free &= ~mask
    return np.stack(kept) if kept else np.empty((0, *foreground.shape), bool)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every mask of bool [M, h, w] with every one of bool [N, h, w]: float64 [M, N], 0 where both are empty."""
    flat_a, flat_b = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    shared = flat_a @ flat_b.T
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - shared
    return shared / np.maximum(union, 1.0)


class InstanceReadOut:
    """Gives the instances of successive frames ids that last."""

    def __init__(self) -> None:
        self._masks: dict[int, np.ndarray] = {}
        self._missed: dict[int, int] = {}
        self._next = 1

    def step(self, percepts: Percepts, foreground: np.ndarray) -> np.ndarray:
        """Ids int32 [h, w] on the grid of the percepts, 0 is background.

        Args:
            percepts: the engine's proposals, and its backward flow along which the objects before are moved.
            foreground: float32 [h', w'] probability; resized to the grid.
        """
        grid = percepts.masks.shape[1:]
        mask = cv2.resize(foreground, grid[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        found = instances(percepts.masks, percepts.scores, mask)
        if percepts.flow is not None:
            self._masks = {known: _moved(shape, percepts.flow) for known, shape in self._masks.items()}
        ids = self._link(found)
        labels = np.zeros(grid, np.int32)
        for shape, known in zip(found, ids, strict=True):
            labels[shape] = known
        return labels

    def _link(self, found: np.ndarray) -> list[int]:
        """Id of every instance found; objects not among them are kept for a while."""
        known = list(self._masks)
        ids = [0] * len(found)
        if known and len(found):
            overlap = overlaps(np.stack([self._masks[k] for k in known]), found)
            for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[row, column] >= _SAME:
                    ids[column] = known[row]
        for index, identity in enumerate(ids):
            if not identity:
                ids[index] = self._next
                self._next += 1
            self._masks[ids[index]] = found[index]
        for k in list(self._masks):
            self._missed[k] = 0 if k in ids else self._missed.get(k, 0) + 1
            if self._missed[k] > _PATIENCE:
                del self._masks[k], self._missed[k]
        return ids


def _moved(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    h, w = mask.shape
    x, y = np.mgrid[0:h, 0:w][::-1].astype(np.float32) + flow
    return cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5
