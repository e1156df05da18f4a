"""COCO's average precision and recall over masks with one class that stands for all objects."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

MAX_DETECTIONS = [10, 20, 100]
"""Per image, best scores first; AP counts up to the last."""

SIZES_PX = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""Areas of COCO."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Masks of one image with their scores: bool [N, H, W], float [N]."""

    masks: np.ndarray
    scores: np.ndarray


class AveragePrecision:
    """Collects images; `figures` is COCO's AP and AR over masks with a single class.

    Args:
        max_detections: counts that recall is given at, ascending; AP counts up to the last.
    """

    def __init__(self, max_detections: Sequence[int] = MAX_DETECTIONS) -> None:
        self._max_detections = list(max_detections)
        self._images: list[dict[str, int]] = []
        self._truths: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, truth: np.ndarray, answer: Answer) -> None:
        """One image: integer [H, W] instances and what was found."""
        image = len(self._images) + 1
        self._images.append({"id": image, "height": truth.shape[0], "width": truth.shape[1]})
        for value in np.unique(truth):
            if value:
                mask = truth == value
                self._truths.append(
                    {
                        "id": len(self._truths) + 1,
                        "image_id": image,
                        "category_id": 1,
                        "iscrowd": 0,
                        "area": int(mask.sum()),
                        "segmentation": _encode(mask),
                    }
                )
        for mask, score in zip(answer.masks, answer.scores, strict=True):
            if mask.any():
                entry = {"image_id": image, "category_id": 1, "score": float(score), "segmentation": _encode(mask)}
                self._found.append(entry)

    def figures(self) -> dict[str, float]:
        """AP (IoU 0.5 to 0.95), AP50, AP75, AR at each of `max_detections`, by size at the last; nan without truth."""
        names = ["AP", "AP50", "AP75", *(f"AR@{n}" for n in self._max_detections), *(f"AR {size}" for size in SIZES_PX)]
        if not self._truths:
            return dict.fromkeys(names, float("nan"))
        if not self._found:
            return dict.fromkeys(names, 0.0)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "info": {},
                "images": self._images,
                "annotations": self._truths,
                "categories": [{"id": 1, "name": "object"}],
            }
            truth.createIndex()
            judge = COCOeval(truth, truth.loadRes(self._found), "segm")
            judge.params.maxDets = self._max_detections
            judge.params.areaRng = [[0, 1e10], *(list(limits) for limits in SIZES_PX.values())]
            judge.params.areaRngLbl = ["all", *SIZES_PX]
            judge.evaluate()
            judge.accumulate()
        # precision [IoU, recall, class, size, detections], recall [IoU, class, size, detections]; -1 is "no truth".
        precision, recall = judge.eval["precision"][:, :, 0, 0, -1], judge.eval["recall"][:, 0]
        values = [
            _mean(precision),
            _mean(precision[0]),
            _mean(precision[5]),
            *(_mean(recall[:, 0, column]) for column in range(len(self._max_detections))),
            *(_mean(recall[:, row, -1]) for row in range(1, 1 + len(SIZES_PX))),
        ]
        return dict(zip(names, values, strict=True))


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _encode(mask: np.ndarray) -> dict[str, Any]:
    encoded: dict[str, Any] = rle.encode(np.asfortranarray(mask, np.uint8))
    return encoded
