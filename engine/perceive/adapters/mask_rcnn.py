"""Mask R-CNN in torchvision's layout: boxes, labels, scores and one small mask per box.

Boxes are pixels of the input, masks probabilities [n, 1, 28, 28] inside their box, or [n, 1, h, w] where the
file pastes them itself. He et al., Mask R-CNN (2017); pasting as torchvision's `paste_masks_in_image` does it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numba
import numpy as np

from engine.errors import ModelError
from engine.perceive.adapters.duplicates import best_distinct
from engine.perceive.adapters.foreign import GRID, OUTSIDE, ForeignRunner
from engine.perceive.adapters.letterbox import Content
from engine.perceive.backends.runner import Runner, Shape


class MaskRcnnRunner(ForeignRunner):
    """Mask R-CNN behind the model contract; labels are ignored.

    Raises:
        ModelError: outputs of another layout.
    """

    expects = "Mask R-CNN outputs boxes [n, 4], scores [n] and masks [n, 1, 28, 28] or [n, 1, h, w]"
    # torchvision normalises inside the model, and fills up with zeros afterwards: with the mean colour.
    normalisation: ClassVar[dict[str, Any]] = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "scale": 1 / 255}
    place = "corner"
    fill = (123.675, 116.28, 103.53)

    def __init__(self, raw: Runner, where: str) -> None:
        super().__init__(raw, where)
        names = output_names(raw.outputs)
        if names is None:
            raise self.refuse(raw, where)
        self._boxes, self._scores, self._masks = names

    def _wanted(self) -> list[str]:
        return [self._boxes, self._scores, self._masks]

    def _decode(self, raw: Mapping[str, np.ndarray], content: Content) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores, masks = (raw[name] for name in self._wanted())
        if boxes.shape != (len(scores), 4) or masks.shape[:2] != (len(scores), 1):
            raise ModelError(
                f"model {self._where}: {len(scores)} scores, boxes {list(boxes.shape)}, masks {list(masks.shape)}"
            )
        kept = best_distinct(boxes, scores, self._proposals)
        if masks.shape[2:] == self._size:
            return _shrink(masks[kept, 0], content), scores[kept]
        return paste(masks[kept, 0], boxes[kept], content, GRID), scores[kept]


def output_names(outputs: Mapping[str, Shape]) -> tuple[str, str, str] | None:
    """Names of boxes, scores and masks, by name or else by rank and torchvision's order; None where it is not so."""
    if {"boxes", "scores", "masks"} <= set(outputs):
        return "boxes", "scores", "masks"
    by_rank = {rank: [name for name, shape in outputs.items() if len(shape) == rank] for rank in (1, 2, 4)}
    if len(outputs) != 4 or [len(names) for names in by_rank.values()] != [2, 1, 1]:
        return None
    boxes, masks = by_rank[2][0], by_rank[4][0]
    return (boxes, by_rank[1][1], masks) if outputs[boxes][1] == 4 else None


def paste(masks: np.ndarray, boxes: np.ndarray, content: Content, grid: tuple[int, int]) -> np.ndarray:
    """Small masks as logits on the grid.

    Torchvision's pasting, evaluated at the centres of the grid's cells instead of at every pixel: the same
    numbers where the grid is as fine as the input, elsewhere what lies between its pixels.

    Args:
        masks: float32 [n, m, m] probabilities.
        boxes: float32 [n, 4] x0, y0, x1, y1 in pixels of the input.
        content: where the frame lies in the input.
        grid: (h, w) of the grid over the frame.

    Returns:
        float32 [n, h, w], at least `OUTSIDE`, which it is outside of the boxes.
    """
    m = masks.shape[-1]
    # A frame of zeros around the mask lets its border fade out; the box grows with it, and ends on whole pixels.
    half = np.float32((m + 2) / m) * (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5)
    middle = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    start = (middle - half).astype(np.int64)
    length = np.maximum((middle + half).astype(np.int64) - start + 1, 1)
    out = np.full((len(masks), *grid), OUTSIDE, np.float32)
    y, x = content.centres(grid)
    _paste(np.ascontiguousarray(masks, np.float32), start, length, y, x, OUTSIDE, out)
    return out


@numba.njit(cache=True, nogil=True)
def _cell(mask, y, x):  # type: ignore[no-untyped-def]
    """Value of a mask with a frame of zeros around it; y, x count from that frame."""
    m = len(mask)
    return mask[y - 1, x - 1] if 1 <= y <= m and 1 <= x <= m else np.float32(0)


@numba.njit(cache=True, nogil=True)
def _paste(masks, start, length, ys, xs, outside, out):  # type: ignore[no-untyped-def]
    last = masks.shape[1] + 1
    for n in range(len(masks)):
        scale_x = (last + 1) / length[n, 0]
        scale_y = (last + 1) / length[n, 1]
        for i in range(len(ys)):
            in_y = ys[i] - start[n, 1]
            if in_y < 0 or in_y >= length[n, 1]:
                continue
            v = max(in_y * scale_y - 0.5, 0.0)
            y0 = min(int(v), last)
            y1 = min(y0 + 1, last)
            fy = v - y0
            for j in range(len(xs)):
                in_x = xs[j] - start[n, 0]
                if in_x < 0 or in_x >= length[n, 0]:
                    continue
                u = max(in_x * scale_x - 0.5, 0.0)
                x0 = min(int(u), last)
                x1 = min(x0 + 1, last)
                fx = u - x0
                top = _cell(masks[n], y0, x0) * (1 - fx) + _cell(masks[n], y0, x1) * fx
                bottom = _cell(masks[n], y1, x0) * (1 - fx) + _cell(masks[n], y1, x1) * fx
                p = top * (1 - fy) + bottom * fy
                if p >= 1.0:
                    out[n, i, j] = -outside
                elif p > 0.0:
                    out[n, i, j] = min(max(np.log(p / (1.0 - p)), outside), -outside)


def _shrink(masks: np.ndarray, content: Content) -> np.ndarray:
    """Masks the file has pasted, probabilities [n, h, w] on the input, as logits on the grid: the mean of each cell."""
    rows = slice(content.top, content.top + content.height)
    columns = slice(content.left, content.left + content.width)
    limit = 1 / (1 + np.exp(-OUTSIDE))
    out = np.empty((len(masks), *GRID), np.float32)
    for mask, cells in zip(masks, out, strict=True):
        cv2.resize(mask[rows, columns], GRID[::-1], dst=cells, interpolation=cv2.INTER_AREA)
    p = np.clip(out, limit, 1 - limit)
    return np.log(p / (1 - p))
