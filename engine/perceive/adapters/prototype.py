"""Prototype-style networks: a mask is a weighted sum of a few pictures that all detections share.

Layouts: YOLO-seg, `predictions` [1, 4 + K + k, A] (also [1, A, 5 + K + k], with objectness) and `prototypes`
[1, k, h', w']; YOLACT, boxes [1, A, 4], class scores [1, A, 1 + K], coefficients [1, A, k] and prototypes
[1, h', w', k]. K classes, A detections, k prototypes. Bolya et al., YOLACT (2019), Eq. 1.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np

from engine.errors import ModelError
from engine.perceive.adapters.duplicates import best_distinct
from engine.perceive.adapters.foreign import GRID, OUTSIDE, ForeignRunner
from engine.perceive.adapters.letterbox import Content
from engine.perceive.backends.runner import Runner, Shape


@dataclass(frozen=True, slots=True)
class Detections:
    """What the network says, before anything is left out.

    Attributes:
        boxes: float32 [A, 4] x0, y0, x1, y1 in pixels of the input.
        scores: float32 [A], the best class's.
        coefficients: float32 [A, k].
        prototypes: float32 [k, h', w'].
    """

    boxes: np.ndarray
    scores: np.ndarray
    coefficients: np.ndarray
    prototypes: np.ndarray


class PrototypeRunner(ForeignRunner):
    """YOLO-seg or YOLACT behind the model contract; classes only give their best score.

    Raises:
        ModelError: outputs of another layout, or with non-maximum suppression inside the file.
    """

    expects = "prototype outputs predictions [1, 4 + classes + k, A] and prototypes [1, k, h', w'], or YOLACT's four,"
    normalisation: ClassVar[dict[str, Any]] = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "scale": 1 / 255}
    place = "centre"
    fill = (114.0, 114.0, 114.0)

    def __init__(self, raw: Runner, where: str) -> None:
        super().__init__(raw, where)
        self._yolo, self._yolact = yolo_names(raw.outputs), yolact_names(raw.outputs)
        if self._yolo is None and self._yolact is None:
            raise self.refuse(raw, where)
        if _has_suppression(raw.metadata):
            raise ModelError(f"model {where}: exported with non-maximum suppression inside; export it with nms=False")

    def _wanted(self) -> list[str]:
        return list(self._yolo or self._yolact or ())

    def _decode(self, raw: Mapping[str, np.ndarray], content: Content) -> tuple[np.ndarray, np.ndarray]:
        arrays = [raw[name] for name in self._wanted()]
        if self._yolo is not None:
            found = read_yolo(arrays[0][0], arrays[1][0])
        else:
            found = read_yolact(arrays[0][0], arrays[1][0], arrays[2][0], arrays[3][0], self._size)
        kept = best_distinct(found.boxes, found.scores, self._proposals)
        logits = assemble(
            found.prototypes, found.coefficients[kept], found.boxes[kept], self._size, content.centres(GRID)
        )
        return logits, found.scores[kept]


def yolo_names(outputs: Mapping[str, Shape]) -> tuple[str, str] | None:
    """Names of predictions and prototypes; None where it is not YOLO-seg's layout."""
    predictions = [name for name, shape in outputs.items() if len(shape) == 3]
    prototypes = [name for name, shape in outputs.items() if len(shape) == 4]
    if len(outputs) != 2 or len(predictions) != 1 or len(prototypes) != 1:
        return None
    return predictions[0], prototypes[0]


def yolact_names(outputs: Mapping[str, Shape]) -> tuple[str, str, str, str] | None:
    """Names of boxes, class scores, coefficients, prototypes, by rank and YOLACT's order; None where it is not so."""
    flat = [name for name, shape in outputs.items() if len(shape) == 3]
    prototypes = [name for name, shape in outputs.items() if len(shape) == 4]
    if len(outputs) != 4 or len(flat) != 3 or outputs[flat[0]][2] != 4:
        return None
    return flat[0], flat[1], flat[2], prototypes[0]


def read_yolo(predictions: np.ndarray, prototypes: np.ndarray) -> Detections:
    """Detections of YOLO-seg.

    Args:
        predictions: float32 [4 + K + k, A], box centre and size in pixels, class scores, coefficients; or
            [A, 5 + K + k] of the older layout, in which an objectness that multiplies the scores follows the box.
        prototypes: float32 [k, h', w'].

    Raises:
        ModelError: too few rows for a class.
    """
    k = len(prototypes)
    older = predictions.shape[0] > predictions.shape[1]
    rows = predictions.T if older else predictions
    if len(rows) < 5 + older + k:
        raise ModelError(f"predictions have {len(rows)} values, at least {5 + older + k} are needed for {k} prototypes")
    scores = rows[4 + older : len(rows) - k].max(axis=0)
    if older:
        scores = scores * rows[4]
    centre, half = rows[:2].T, rows[2:4].T * np.float32(0.5)
    return Detections(
        np.concatenate([centre - half, centre + half], axis=1), scores, rows[len(rows) - k :].T, prototypes
    )


def read_yolact(
    boxes: np.ndarray, classes: np.ndarray, coefficients: np.ndarray, prototypes: np.ndarray, size: tuple[int, int]
) -> Detections:
    """Detections of YOLACT.

    Args:
        boxes: float32 [A, 4] x0, y0, x1, y1 as fractions of the input.
        classes: float32 [A, 1 + K] probabilities, background first.
        coefficients: float32 [A, k].
        prototypes: float32 [h', w', k] or [k, h', w'].
        size: (h, w) of the input.
    """
    if prototypes.shape[2] == coefficients.shape[1] != prototypes.shape[0]:
        prototypes = np.ascontiguousarray(prototypes.transpose(2, 0, 1))
    scale = np.array([size[1], size[0]] * 2, np.float32)
    return Detections(boxes * scale, classes[:, 1:].max(axis=1), coefficients, prototypes)


def assemble(
    prototypes: np.ndarray,
    coefficients: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    centres: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Masks of detections: prototypes times coefficients inside the box.

    Sampling first and summing afterwards is the same as the other way round, for bilinear sampling is linear,
    and there are fewer prototypes than detections.

    Args:
        prototypes: float32 [k, h', w'].
        coefficients: float32 [n, k].
        boxes: float32 [n, 4] in pixels of the input.
        size: (h, w) of the input.
        centres: y [h] and x [w] of the cells wanted, in pixels of the input.

    Returns:
        float32 [n, h, w] logits, `OUTSIDE` outside of the boxes.
    """
    y, x = centres
    k, rows, columns = prototypes.shape
    sampled = np.empty((k, len(y), len(x)), np.float32)
    _sample(
        np.ascontiguousarray(prototypes, np.float32),
        y * np.float32(rows / size[0]) - np.float32(0.5),
        x * np.float32(columns / size[1]) - np.float32(0.5),
        sampled,
    )
    logits = (np.ascontiguousarray(coefficients) @ sampled.reshape(k, -1)).reshape(-1, len(y), len(x))
    inside_y = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    inside_x = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    return np.where(inside_y[:, :, None] & inside_x[:, None, :], logits, OUTSIDE)


@numba.njit(cache=True, nogil=True)
def _sample(planes, ys, xs, out):  # type: ignore[no-untyped-def]
    """Bilinear values at rows ys and columns xs; beyond the outermost centres the border goes on."""
    _, rows, columns = planes.shape
    for i in range(len(ys)):
        v = min(max(ys[i], np.float32(0)), np.float32(rows - 1))
        y0 = int(v)
        y1 = min(y0 + 1, rows - 1)
        fy = v - np.float32(y0)
        for j in range(len(xs)):
            u = min(max(xs[j], np.float32(0)), np.float32(columns - 1))
            x0 = int(u)
            x1 = min(x0 + 1, columns - 1)
            fx = u - np.float32(x0)
            for k in range(len(planes)):
                top = planes[k, y0, x0] * (np.float32(1) - fx) + planes[k, y0, x1] * fx
                bottom = planes[k, y1, x0] * (np.float32(1) - fx) + planes[k, y1, x1] * fx
                out[k, i, j] = top * (np.float32(1) - fy) + bottom * fy


def _has_suppression(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata, as one widespread exporter writes it, says so."""
    try:
        arguments = ast.literal_eval(metadata.get("args", "{}"))
    except (ValueError, SyntaxError):
        arguments = {}
    stated = arguments.get("nms", False) if isinstance(arguments, dict) else False
    return bool(stated) or metadata.get("end2end", "False") == "True"
