"""Masks as bit sets: a frame's candidates packed 64 pixels to a word, and how they overlap."""

from dataclasses import dataclass

import numpy as np

from engine.select.compiled import compiled, lowest_bit, popcount


@dataclass(frozen=True, slots=True)
class PackedMasks:
    """Candidates of one frame; bit b of word w is pixel 64 w + b in row-major order.

    Attributes:
        words: int64 [N, W].
        areas: int64 [N], pixels.
        first, last: int64 [N], half-open range of words that are not zero.
        shape: (h, w) of the grid.
    """

    words: np.ndarray
    areas: np.ndarray
    first: np.ndarray
    last: np.ndarray
    shape: tuple[int, int]


def pack(masks: np.ndarray) -> PackedMasks:
    """Pack bool [N, h, w]; N may be 0."""
    n, h, w = masks.shape
    n_words = max(1, (h * w + 63) // 64)
    padded = np.zeros((n, 8 * n_words), np.uint8)
    if n and h * w:
        packed = np.packbits(masks.reshape(n, h * w), axis=1, bitorder="little")
        padded[:, : packed.shape[1]] = packed
    words = padded.view("<i8").astype(np.int64, copy=False)
    areas, first, last = _extents(words)
    return PackedMasks(words, areas, first, last, (h, w))


@compiled
def _extents(words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, n_words = words.shape
    areas = np.zeros(n, np.int64)
    first = np.zeros(n, np.int64)
    last = np.zeros(n, np.int64)
    for i in range(n):
        for j in range(n_words):
            if words[i, j] != 0:
                if areas[i] == 0:
                    first[i] = j
                last[i] = j + 1
                areas[i] += popcount(words[i, j])
    return areas, first, last


@compiled
def _conflicts(
    words: np.ndarray, areas: np.ndarray, first: np.ndarray, last: np.ndarray, tolerance: float
) -> np.ndarray:
    n = len(words)
    out = np.zeros((n, n), np.bool_)
    for a in range(n):
        for b in range(a):
            shared = 0
            for j in range(max(first[a], first[b]), min(last[a], last[b])):
                shared += popcount(words[a, j] & words[b, j])
            if shared > tolerance * min(areas[a], areas[b]):
                out[a, b] = True
                out[b, a] = True
    return out


def conflicts(masks: PackedMasks, tolerance: float) -> np.ndarray:
    """Which masks exclude each other: |A and B| / min(|A|, |B|) > tolerance (section 3.2.3; tolerance ours).

    Returns:
        bool [N, N], symmetric, diagonal False. A mask without pixels excludes nothing.
    """
    return _conflicts(masks.words, masks.areas, masks.first, masks.last, tolerance)


@compiled
def sums_inside(words: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of each row of values [C, P] over the pixels of each bit set [N, W]: float64 [N, C]."""
    n, n_words = words.shape
    channels = len(values)
    out = np.empty((n, channels))
    for i in range(n):
        for c in range(channels):
            row = values[c]
            total = 0.0
            for j in range(n_words):
                word = words[i, j]
                if word == -1:
                    for x in range(64 * j, 64 * j + 64):
                        total += row[x]
                    continue
                while word != 0:
                    total += row[64 * j + lowest_bit(word)]
                    word &= word - 1
            out[i, c] = total
    return out
