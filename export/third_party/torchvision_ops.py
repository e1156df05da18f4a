"""Lets torchvision be imported beside a torch its compiled operators were not built for.

Its Python part declares operators of its compiled part and fails where that cannot be loaded (`operator
torchvision::nms does not exist`). Two operators are enough for detectors, and slow ones are enough to trace them.
"""

import importlib
import sys
from types import ModuleType

import torch
from torch import Tensor

from engine.errors import ModelError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """torchvision, with stand-ins for its operators where its own do not load.

    Raises:
        ModelError: it is not installed.
    """
    global _library
    if "torchvision" not in sys.modules and _library is None:
        try:
            return importlib.import_module("torchvision")
        except ImportError as error:
            raise ModelError(
                f"torchvision cannot be imported ({error}): pip install --no-deps torchvision pillow, in the version "
                "that goes with your torch"
            ) from None
        except RuntimeError:
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        _library.impl("nms", suppressed, "CPU")
        _library.impl("roi_align", pooled, "CPU")
    torchvision = importlib.import_module("torchvision")
    if _library is not None:
        for name in ("torchvision.ops.boxes", "torchvision.ops.roi_align"):
            module = importlib.import_module(name) if name not in sys.modules else sys.modules[name]
            vars(module).update(_has_ops=_has_ops, _assert_has_ops=_assert_has_ops)
    return torchvision


def _has_ops() -> bool:
    return True


def _assert_has_ops() -> None:
    """No lambda, for the tracer compiles what calls it."""


def suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: indices int64 [n] kept, best first.

    Args:
        boxes: float [N, 4] x0, y0, x1, y1.
        scores: float [N].
        iou_threshold: a box that overlaps a kept one by more is left out.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = boxes[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        start, end = torch.maximum(boxes[i, :2], boxes[:, :2]), torch.minimum(boxes[i, 2:], boxes[:, 2:])
        shared = (end - start).clamp(min=0).prod(dim=1)
        alive &= ~(shared / (area[i] + area - shared) > iou_threshold) | (torch.arange(len(boxes)) <= i)
    return order[alive]


def pooled(
    features: Tensor, rois: Tensor, scale: float, height: int, width: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """RoIAlign: the mean of bilinear samples in each of height x width bins of a box (He et al. 2017, Sec. 3).

    Args:
        features: float [B, C, h, w].
        rois: float [K, 5], index into the batch, then x0, y0, x1, y1.
        scale: pixels of `features` per unit of `rois`.
        sampling_ratio: samples per bin and axis; above 0.
        aligned: whether pixel centres lie at halves.

    Returns:
        float [K, C, height, width].
    """
    shift = 0.5 if aligned else 0.0
    start = rois[:, 1:3] * scale - shift
    extent = rois[:, 3:5] * scale - shift - start
    if not aligned:
        extent = extent.clamp(min=1.0)
    out = features.new_empty(len(rois), features.shape[1], height, width)
    for k in range(len(rois)):
        plane = features[int(rois[k, 0])]
        x = _samples(start[k, 0], extent[k, 0], width * sampling_ratio)
        y = _samples(start[k, 1], extent[k, 1], height * sampling_ratio)
        rows = _interpolation(y, plane.shape[1])
        columns = _interpolation(x, plane.shape[2])
        values = torch.einsum("ih,chw,jw->cij", rows, plane, columns)
        bins = values.reshape(len(plane), height, sampling_ratio, width, sampling_ratio)
        out[k] = bins.mean(dim=(2, 4))
    return out


def _samples(start: Tensor, extent: Tensor, count: int) -> Tensor:
    """Centres of `count` equal parts."""
    return start + (torch.arange(count, dtype=extent.dtype) + 0.5) * (extent / count)


def _interpolation(position: Tensor, length: int) -> Tensor:
    """Weights [n, length] of linear interpolation; nothing farther than one pixel outside."""
    inside = ((position >= -1.0) & (position <= length)).to(position.dtype)
    clamped = position.clamp(0, length - 1)
    low = clamped.long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    share = (clamped - low) * inside
    weights = torch.zeros(len(position), length, dtype=position.dtype)
    weights.scatter_add_(1, low[:, None], (inside - share)[:, None])
    weights.scatter_add_(1, high[:, None], share[:, None])
    return weights
