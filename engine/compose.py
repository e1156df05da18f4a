"""Chosen masks of the working grid become a label map without overlap at frame size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from engine.attention import stabilities, unexplained
from engine.percepts import Percepts
from engine.scene import Look
from engine.select.render import paint_order

Extent = tuple[tuple[int, int, int, int], int]
"""Half-open box (x0, y0, x1, y1) and area of one object, frame pixels."""

_FOUR_TIMES = np.uint64(0x0001000100010001)
_NO_FOURS = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Picture:
    """All of a scene that depends on the chosen masks alone, not on what they are called.

    Attributes:
        labels: uint16 [H, W].
        values: pixel value of each member in `labels`.
        extents: of the members that own a pixel, by value.
        stabilities: of each member's mask, float64 [N].
        regions: foreground that no member covers.
    """

    labels: np.ndarray
    values: tuple[int, ...]
    extents: dict[int, Extent]
    stabilities: np.ndarray
    regions: tuple[Look, ...]

    @classmethod
    def of(
        cls, percepts: Percepts, members: tuple[int, ...], values: Sequence[int], frame_size: tuple[int, int]
    ) -> "Picture":
        """Compose the chosen masks; arguments as of `render_labels`."""
        labels = render_labels(percepts, members, list(values), frame_size)
        return cls(
            labels,
            tuple(values),
            boxes_and_areas(labels, list(values)),
            stabilities(percepts.logits[list(members)]),
            tuple(unexplained(percepts, members, frame_size)),
        )

    def called(self, values: Sequence[int]) -> "Picture":
        """The same picture with other pixel values, one per member."""
        if self.values == tuple(values):
            return self
        value_of = np.zeros(max(self.values) + 1, np.uint16)
        value_of[list(self.values)] = values
        extents = {new: self.extents[old] for old, new in zip(self.values, values, strict=True) if old in self.extents}
        return Picture(_mapped(self.labels, value_of), tuple(values), extents, self.stabilities, self.regions)


@numba.njit(cache=True, nogil=True)
def _mapped(labels, value_of):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    out = np.empty((height, width), np.uint16)
    for y in range(height):
        for x in range(width):
            out[y, x] = value_of[labels[y, x]]
    return out


def render_labels(
    percepts: Percepts, members: tuple[int, ...], labels: list[int], frame_size: tuple[int, int]
) -> np.ndarray:
    """Label map of the selected masks at frame size: each soft mask interpolated bilinearly and cut at zero.

    Args:
        percepts: the candidates of the frame.
        members: indices of the selected candidates.
        labels: pixel value of each member.
        frame_size: (H, W).

    Returns:
        uint16 [H, W], 0 is background.
    """
    height, width = frame_size
    h, w = percepts.background.shape
    rows, columns = _lattice(height, h), _lattice(width, w)
    out = np.zeros((height, width), np.uint16)
    label_of = dict(zip(members, labels, strict=True))
    for member in paint_order(members, _mean_logits(percepts, members)):
        _paint(out, percepts.logits[member], *rows, *columns, label_of[member])
    return out


@lru_cache(maxsize=8)
def _lattice(size_px: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of one axis lie between the cells of the grid.

    Pixel centres: the grid coordinate of pixel X is (X + 0.5) cells / size - 0.5, held inside the grid.

    Returns:
        starts int64 [cells + 1]: pixels starts[c] ... starts[c + 1] lie between cells c and c + 1, and
        share float32 [size]: how far on the way.
    """
    place = np.clip((np.arange(size_px) + 0.5) * (cells / size_px) - 0.5, 0, cells - 1)
    cell = np.floor(place).astype(np.int64)
    return np.searchsorted(cell, np.arange(cells + 1)), (place - cell).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _paint(out, logits, row_starts, row_share, column_starts, column_share, label):  # type: ignore[no-untyped-def]
    """Write `label` where the interpolated logits are positive; whole cells at once where all corners agree."""
    h, w = logits.shape
    line = np.empty(w, np.float32)
    for r in range(h):
        below = min(r + 1, h - 1)
        inside = False
        for c in range(w):
            inside |= logits[r, c] > 0 or logits[below, c] > 0
        if not inside:
            continue
        for y in range(row_starts[r], row_starts[r + 1]):
            share = row_share[y]
            for c in range(w):
                line[c] = logits[r, c] + share * (logits[below, c] - logits[r, c])
            for c in range(w):
                left, right = line[c], line[min(c + 1, w - 1)]
                if left <= 0 and right <= 0:
                    continue
                if left > 0 and right > 0:
                    for x in range(column_starts[c], column_starts[c + 1]):
                        out[y, x] = label
                else:
                    for x in range(column_starts[c], column_starts[c + 1]):
                        if left + column_share[x] * (right - left) > 0:
                            out[y, x] = label


def _mean_logits(percepts: Percepts, members: tuple[int, ...]) -> np.ndarray:
    """float64 [N]: mean background log-odds under each of `members`, 0 for the others."""
    clamped = np.clip(percepts.background, 0.01, 0.99)
    logit = np.log(clamped / (1.0 - clamped))
    means = np.zeros(len(percepts.masks))
    for member in members:
        mask = percepts.masks[member]
        if mask.any():
            means[member] = logit[mask].mean()
    return means


def boxes_and_areas(labels: np.ndarray, values: list[int]) -> dict[int, Extent]:
    """Half-open box (x0, y0, x1, y1) and area of each value present in a label map, in one pass."""
    row_of = np.zeros(0x10000, np.int32)
    row_of[values] = np.arange(1, len(values) + 1)
    width = labels.shape[1]
    fours = labels.reshape(-1).view(np.uint64) if width % 4 == 0 and labels.flags.c_contiguous else _NO_FOURS
    extents = _extents(labels, fours, row_of, len(values))
    return {
        value: ((int(x0), int(y0), int(x1), int(y1)), int(area))
        for value, (x0, y0, x1, y1, area) in zip(values, extents, strict=True)
        if area
    }


@numba.njit(cache=True, nogil=True)
def _extents(labels, fours, row_of, count):  # type: ignore[no-untyped-def]
    """Box and area per value; `fours` is the same map as uint64, four pixels at once, or empty."""
    height, width = labels.shape
    out = np.zeros((count, 5), np.int64)
    for i in range(count):
        out[i, 0], out[i, 1] = width, height
    for y in range(height):
        x = 0
        while x < width:
            value = labels[y, x]
            start = x
            x += 1
            # A run of one value at a time: most pixels say nothing new.
            if len(fours):
                while x % 4 and labels[y, x] == value:
                    x += 1
                if x % 4 == 0:
                    same = np.uint64(value) * _FOUR_TIMES
                    at, end = (y * width + x) // 4, (y + 1) * width // 4
                    while at < end and fours[at] == same:
                        at += 1
                        x += 4
            while x < width and labels[y, x] == value:
                x += 1
            i = row_of[value] - 1
            if value and i >= 0:
                out[i, 0] = min(out[i, 0], start)
                out[i, 1] = min(out[i, 1], y)
                out[i, 2] = max(out[i, 2], x)
                out[i, 3] = max(out[i, 3], y + 1)
                out[i, 4] += x - start
    return out
