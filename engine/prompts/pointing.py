"""From what a robot points with (mask, box or point, in frame pixels) to a mask on the working grid."""

from collections.abc import Sequence

import cv2
import numpy as np

from engine.errors import UsageError
from engine.percepts import Percepts
from engine.prompts.affinity import nearest

_FITTING_BOX = 0.7
"""Overlap of a candidate's box with the one given from which it is what was meant."""

_SURE_SHARE = 0.5
"""Candidates below this share of the best score at the point are noise, however small and tempting."""

_ALIKE = 4.0
"""Squared feature distance up to which a pixel is taken for part of what was pointed at."""

_LARGEST_GROWN = 0.25
"""Fraction of the image; what grows beyond it has leaked."""


def labels_of_mask(mask: np.ndarray, frame_size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """A mask of the frame on the working grid: float32 [h, w], the share of each cell inside.

    Raises:
        UsageError: not bool, not of the frame's size, empty, or too small for the grid.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != frame_size:
        height, width = frame_size
        raise UsageError(f"track mask={mask.dtype}{list(mask.shape)}: must be bool[{height}, {width}], as the frame")
    if not mask.any():
        raise UsageError("track mask: no pixel is set; mark at least one cell of the working grid")
    labels: np.ndarray = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    if not (labels > 0.5).any():
        cell = frame_size[0] / grid[0] * frame_size[1] / grid[1]
        raise UsageError(f"track mask={int(mask.sum())} pixels: fills no cell of the working grid ({cell:.0f} pixels)")
    return labels


def labels_of_box(
    box: Sequence[float], frame_size: tuple[int, int], percepts: Percepts, features: np.ndarray
) -> np.ndarray:
    """What a box holds: the candidate whose own box fits best, or what differs from the surroundings of the box.

    Args:
        box: (x0, y0, x1, y1), half-open frame pixels.

    Returns:
        float32 [h, w] in [0, 1].

    Raises:
        UsageError: not four numbers, not ascending, or not inside the frame.
    """
    height, width = frame_size
    values = _numbers("box", box, 4)
    x0, y0, x1, y1 = values
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UsageError(f"track box={_shown(values)}: must be x0 < x1 <= {width} and y0 < y1 <= {height}, from 0")
    h, w = percepts.background.shape
    left, right = x0 * w / width, x1 * w / width
    top, bottom = y0 * h / height, y1 * h / height
    best, fit = -1, _FITTING_BOX
    for i, mask in enumerate(percepts.masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        wide = min(right, columns[-1] + 1) - max(left, columns[0])
        high = min(bottom, rows[-1] + 1) - max(top, rows[0])
        inter = max(wide, 0.0) * max(high, 0.0)
        own = (columns[-1] + 1 - columns[0]) * (rows[-1] + 1 - rows[0])
        overlap = inter / ((right - left) * (bottom - top) + own - inter)
        # The score only decides between boxes that fit equally well.
        if overlap + 0.1 * percepts.scores[i] > fit and overlap >= _FITTING_BOX:
            best, fit = i, overlap + 0.1 * float(percepts.scores[i])
    if best >= 0:
        labels: np.ndarray = percepts.masks[best].astype(np.float32)
        return labels
    return _grown_in_box((left, top, right, bottom), features)


def labels_of_point(
    point: Sequence[float], frame_size: tuple[int, int], percepts: Percepts, features: np.ndarray
) -> np.ndarray:
    """What lies under a point: the smallest candidate there that is not noise, or the area that looks the same.

    Args:
        point: (x, y), frame pixels.

    Returns:
        float32 [h, w] in [0, 1].

    Raises:
        UsageError: not two numbers, or not inside the frame.
    """
    height, width = frame_size
    values = _numbers("point", point, 2)
    if not (0 <= values[0] < width and 0 <= values[1] < height):
        raise UsageError(f"track point={_shown(values)}: must be inside the frame, below ({width}, {height})")
    h, w = percepts.background.shape
    x, y = int(values[0] * w / width), int(values[1] * h / height)
    under = np.flatnonzero(percepts.masks[:, y, x])
    if len(under):
        scores = percepts.scores[under]
        under = under[scores >= _SURE_SHARE * scores.max()]
        areas = percepts.masks[under].reshape(len(under), -1).sum(axis=1)
        labels: np.ndarray = percepts.masks[under[int(areas.argmin())]].astype(np.float32)
        return labels
    return _grown_from_point(x, y, features)


def _grown_in_box(box: tuple[float, float, float, float], features: np.ndarray) -> np.ndarray:
    """Pixels of the box nearer to its middle's features than to those around it; its ellipse where that fails."""
    h, w = features.shape[:2]
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    left, top, right, bottom = box
    across = np.abs(x - (left + right) / 2) / max((right - left) / 2, 0.5)
    down = np.abs(y - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
    ellipse = across**2 + down**2 <= 1.0
    if not ellipse.any():
        ellipse[min(int((top + bottom) / 2), h - 1), min(int((left + right) / 2), w - 1)] = True
    inside = (across <= 1.0) & (down <= 1.0)
    near = cv2.dilate((inside | ellipse).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    middle = ellipse & (across**2 + down**2 <= 0.36)
    rim = near & ~inside & ~ellipse
    core = features[middle] if middle.any() else features[ellipse]
    flat = features[inside | ellipse]
    grown: np.ndarray = np.zeros((h, w), np.float32)
    grown[inside | ellipse] = nearest(flat, core) < nearest(flat, features[rim])
    chosen: np.ndarray = grown if grown.sum() >= 0.2 * ellipse.sum() else ellipse.astype(np.float32)
    return chosen


def _grown_from_point(x: int, y: int, features: np.ndarray) -> np.ndarray:
    """The connected area around a cell that looks like it; less alike is asked for while it leaks."""
    h, w, size = features.shape
    around = features[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].reshape(-1, size)
    apart = nearest(features.reshape(-1, size), np.ascontiguousarray(around)).reshape(h, w)
    limit = _ALIKE
    while True:
        _, components = cv2.connectedComponents((apart <= limit).astype(np.uint8), connectivity=4)
        grown = components == components[y, x]
        if grown.mean() <= _LARGEST_GROWN or limit < 1e-3:
            break
        limit /= 2
    if grown.mean() > _LARGEST_GROWN or grown.sum() < 4:
        # Nothing tells it from the rest: a spot to start from.
        grown = np.hypot(*(np.mgrid[0:h, 0:w] - np.array([y, x])[:, None, None])) <= 2.0
    spot: np.ndarray = grown.astype(np.float32)
    return spot


def _numbers(name: str, values: Sequence[float], count: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UsageError(f"track {name}={values}: must be {count} numbers, in frame pixels")
    return numbers


def _shown(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
