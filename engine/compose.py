"""Chosen masks of the working grid become a label map without overlap at frame size."""

import cv2
import numpy as np

from engine.percepts import Percepts


def background_logit(background: np.ndarray) -> np.ndarray:
    """Logit of the background probability, clamped to [0.01, 0.99] like the background loss."""
    clamped = np.clip(background, 0.01, 0.99)
    return np.log(clamped / (1.0 - clamped))


def paint_order(percepts: Percepts, members: tuple[int, ...]) -> list[int]:
    """Positions in `members`, weakest first: where masks overlap, the lower mean background logit owns."""
    logit = background_logit(percepts.background)
    means = [float(logit[percepts.masks[m]].mean()) for m in members]
    return sorted(range(len(members)), key=lambda i: (-means[i], i))


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
    for position in paint_order(percepts, members):
        member = members[position]
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
        out[top:bottom, left:right][soft > 0] = labels[position]
    return out


def boxes_and_areas(labels: np.ndarray, values: list[int]) -> dict[int, tuple[tuple[int, int, int, int], int]]:
    """Half-open box (x0, y0, x1, y1) and area of each value present in a label map."""
    found = {}
    for value in values:
        mask = (labels == value).view(np.uint8)
        area = cv2.countNonZero(mask)
        if area:
            x, y, width, height = cv2.boundingRect(mask)
            found[value] = ((x, y, x + width, y + height), area)
    return found
