"""Intersection over union of two groups of masks, by bit sets."""

import numpy as np

from engine.select.compiled import compiled, popcount
from engine.select.masks import PackedMasks


def overlaps(a: PackedMasks, b: PackedMasks) -> np.ndarray:
    """Intersection over union of every mask of a with every one of b: float32 [A, B], 0 for two empty masks."""
    return _overlaps(a.words, a.areas, b.words, b.areas)


@compiled
def _overlaps(a: np.ndarray, area_a: np.ndarray, b: np.ndarray, area_b: np.ndarray) -> np.ndarray:
    out = np.zeros((len(a), len(b)), np.float32)
    for i in range(len(a)):
        for j in range(len(b)):
            shared = 0
            for k in range(a.shape[1]):
                shared += popcount(a[i, k] & b[j, k])
            out[i, j] = shared / max(1, area_a[i] + area_b[j] - shared)
    return out
