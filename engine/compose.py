"""Chosen masks of the working grid become a label map without overlap at frame size."""

import cv2
import numba
import numpy as np

from engine.percepts import Percepts
from engine.select.render import paint_order


def render_labels(
    percepts: Percepts, members: tuple[int, ...], labels: list[int], frame_size: tuple[int, int]
) -> np.ndarray:
    """Label map of the selected masks at frame size.

    Each soft mask is interpolated only inside its own box and cut at zero.

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
    sy, sx = height / h, width / w
    out = np.zeros((height, width), np.uint16)
    label_of = dict(zip(members, labels, strict=True))
    for member in paint_order(members, _mean_logits(percepts, members)):
        mask = percepts.masks[member]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            continue
        # One grid cell of margin, so that the zero crossing of the border lies inside.
        y0, y1 = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 2, h)
        x0, x1 = max(int(columns[0]) - 1, 0), min(int(columns[-1]) + 2, w)
        top, bottom = int(y0 * sy), min(int(np.ceil(y1 * sy)), height)
        left, right = int(x0 * sx), min(int(np.ceil(x1 * sx)), width)
        crop = np.ascontiguousarray(percepts.logits[member, y0:y1, x0:x1])
        # Pixel centres: grid coordinate of frame pixel X is (X + 0.5) / s - 0.5.
        inverse = np.array(
            [
                [1 / sx, 0, (left + 0.5) / sx - 0.5 - x0],
                [0, 1 / sy, (top + 0.5) / sy - 0.5 - y0],
            ]
        )
        soft = cv2.warpAffine(
            crop,
            inverse,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        out[top:bottom, left:right][soft > 0] = label_of[member]
    return out


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


def boxes_and_areas(labels: np.ndarray, values: list[int]) -> dict[int, tuple[tuple[int, int, int, int], int]]:
    """Half-open box (x0, y0, x1, y1) and area of each value present in a label map, in one pass."""
    row_of = np.zeros(0x10000, np.int64)
    row_of[values] = np.arange(1, len(values) + 1)
    extents = _extents(labels, row_of, len(values))
    return {
        value: ((int(x0), int(y0), int(x1), int(y1)), int(area))
        for value, (x0, y0, x1, y1, area) in zip(values, extents, strict=True)
        if area
    }


@numba.njit(cache=True, nogil=True)
def _extents(labels, row_of, count):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    out = np.zeros((count, 5), np.int64)
    for i in range(count):
        out[i, 0], out[i, 1] = width, height
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0:
                continue
            i = row_of[labels[y, x]] - 1
            if i >= 0:
                out[i, 0] = min(out[i, 0], x)
                out[i, 1] = min(out[i, 1], y)
                out[i, 2] = max(out[i, 2], x + 1)
                out[i, 3] = max(out[i, 3], y + 1)
                out[i, 4] += 1
    return out
