"""What an object looks like, in a form that survives seconds: colour histograms and a bounded memory of them.

The network's embedding is trained to tell objects of one frame apart and drifts between frames; colours tell
the same object from another one across absences far better, so they carry the memory.
"""

import cv2
import numba
import numpy as np

LIGHTNESS_LEVELS, CHROMA_LEVELS = 4, 16
"""Coarse in lightness, which shadows change; fine in the two colour axes."""
HISTOGRAM_SIZE = LIGHTNESS_LEVELS * CHROMA_LEVELS * CHROMA_LEVELS

_MIN_INNER_PX = 10

_WITNESSES = 3
"""Samples a look is compared with: one alone may be of a mask that held somebody else."""


def looks_of(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Colour histogram of each mask, without its border pixels, where the background bleeds in.

    Args:
        image: uint8 [h, w, 3] BGR on the working grid.
        masks: bool [N, h, w].

    Returns:
        float32 [N, D], square roots of histograms that sum to one in CIE Lab, so that the inner product of
        two rows is their Bhattacharyya coefficient; zeros for an empty mask.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    histograms: np.ndarray = _histograms(lab, np.ascontiguousarray(masks))
    return histograms


@numba.njit(cache=True, nogil=True)
def _histograms(lab, masks):  # type: ignore[no-untyped-def]
    count, h, w = masks.shape
    out = np.zeros((count, HISTOGRAM_SIZE), np.float32)
    bins = np.empty((h, w), np.int64)
    for y in range(h):
        for x in range(w):
            lightness = lab[y, x, 0] * LIGHTNESS_LEVELS // 256
            a = min(max((np.int64(lab[y, x, 1]) - 64) * CHROMA_LEVELS // 128, 0), CHROMA_LEVELS - 1)
            b = min(max((np.int64(lab[y, x, 2]) - 64) * CHROMA_LEVELS // 128, 0), CHROMA_LEVELS - 1)
            bins[y, x] = (lightness * CHROMA_LEVELS + a) * CHROMA_LEVELS + b
    for i in range(count):
        mask = masks[i]
        inner = 0
        total = 0
        for attempt in range(2):
            for y in range(h):
                for x in range(w):
                    if not mask[y, x]:
                        continue
                    total += attempt == 0
                    border = (
                        (y > 0 and not mask[y - 1, x])
                        or (y < h - 1 and not mask[y + 1, x])
                        or (x > 0 and not mask[y, x - 1])
                        or (x < w - 1 and not mask[y, x + 1])
                    )
                    # The second attempt, for thin masks, adds what the first left out.
                    if border == (attempt == 1):
                        out[i, bins[y, x]] += 1.0
                        inner += 1
            if inner >= _MIN_INNER_PX or inner == total:
                break
        for k in range(HISTOGRAM_SIZE):
            if out[i, k] > 0:
                out[i, k] = np.sqrt(out[i, k] / inner)
    return out


class AppearanceMemory:
    """A bounded set of past looks of one object; never changed in place, so copies may share it.

    Args:
        samples: float32 [k, D], oldest first.
        capacity: k at most; the most redundant look leaves first.
    """

    __slots__ = ("_capacity", "samples")

    def __init__(self, samples: np.ndarray, capacity: int) -> None:
        self.samples = samples
        self._capacity = capacity

    def likeness(self, looks: np.ndarray) -> np.ndarray:
        """float32 [N] in [0, 1]: Bhattacharyya coefficient of each look [N, D] with its nearest samples."""
        if not len(self.samples):
            return np.zeros(len(looks), np.float32)
        near = looks @ self.samples.T
        first = max(near.shape[1] - _WITNESSES, 0)
        if first:
            near.partition(first, axis=1)
        mean: np.ndarray = near[:, first:].sum(axis=1) / (near.shape[1] - first)
        return mean

    def with_look(self, look: np.ndarray, known: float = 0.95) -> "AppearanceMemory":
        """The memory after one more look [D]; one closer than `known` to a sample adds nothing and is left out."""
        if len(self.samples) and float((self.samples @ look).max()) > known:
            return self
        return self.joined(AppearanceMemory(look[None], self._capacity))

    def joined(self, other: "AppearanceMemory") -> "AppearanceMemory":
        """The memory of two tracks that turned out to be one object."""
        samples = np.concatenate([self.samples, other.samples])
        while len(samples) > self._capacity:
            near = samples @ samples.T
            np.fill_diagonal(near, 0.0)
            # Of the closest pair the older one leaves: the newer says more about the light of today.
            row, column = np.unravel_index(int(near.argmax()), near.shape)
            samples = np.delete(samples, min(row, column), axis=0)
        return AppearanceMemory(samples, self._capacity)
