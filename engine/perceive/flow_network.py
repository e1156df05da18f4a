"""Optical flow from a network: two pictures in, a flow field out, in place of OpenCV's."""

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.errors import ModelError
from engine.perceive.backends.choose import choose, open_runner
from engine.perceive.backends.runner import ModelFile, Request, Shape

_RAW = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "scale": 1.0}
"""Without metadata: 0 ... 255, as RAFT takes it."""


class FlowNetwork:
    """A loaded flow network; keeps nothing between frames, so pipelines may share it.

    Args:
        path: ONNX file with two inputs f32 [1, 3, h, w] of one fixed size and an output f32 [1, 2, H, W]: where
            each pixel of the first picture lies in the second, relative to it, in pixels of H x W (RAFT's
            convention). Of several such outputs the largest counts, of equally large ones the last, for iterative
            networks put out their best guess last. Metadata `normalisation` as in the model contract.
        device: "auto", "cpu" or "cuda".
        threads: processor threads it may use.

    Attributes:
        size: (h, w) of the inputs.
        name: of the file.

    Raises:
        ModelError: missing or corrupt file, or one that is no flow network.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int = 2) -> None:
        if not path.is_file():
            raise ModelError(f"flow model {path}: no such file; give an ONNX file, or leave --flow out")
        backend, chosen_device, _ = choose(path.suffix, "auto", device)
        self._runner = open_runner(Request(ModelFile.read(path), chosen_device, threads), backend)
        self.name = path.stem
        self._inputs, self.size = _inputs(self._runner.inputs, path)
        self._output = _output(self._runner.outputs, path)
        try:
            values = json.loads(self._runner.metadata.get("normalisation", "null")) or _RAW
            mean, std = np.asarray(values["mean"]), np.asarray(values["std"])
            self._gain = (values["scale"] / std).astype(np.float32).reshape(3, 1, 1)
            self._offset = (-mean / std).astype(np.float32).reshape(3, 1, 1)
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"flow model {path}: metadata 'normalisation' is not readable") from None

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """`image` (uint8 [H, W, 3] BGR) as an input, float32 [1, 3, h, w]; the aspect ratio is not kept."""
        h, w = self.size
        if image.shape[:2] != self.size:
            shrinks = image.shape[0] >= h and image.shape[1] >= w
            image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return (image[:, :, ::-1].transpose(2, 0, 1) * self._gain + self._offset)[None]

    def estimate(self, current: np.ndarray, previous: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Backward flow: where the content of each pixel was, relative to it.

        Args:
            current, previous: as `prepare` made them.
            size: (h, w) wanted.

        Returns:
            float32 [h, w, 2] (dx, dy) in pixels of `size`.

        Raises:
            ModelError: the output is no flow field, or not finite.
        """
        feed = dict(zip(self._inputs, (current, previous), strict=True))
        flow = self._runner.run(feed, [self._output])[self._output]
        if flow.ndim != 4 or flow.shape[:2] != (1, 2) or not np.isfinite(flow.sum()):
            raise ModelError(
                f"flow model {self.name}: output '{self._output}' {list(flow.shape)} must be [1, 2, H, W] and finite"
            )
        (height, width), (h, w) = flow.shape[2:], size
        shrinks = height >= h and width >= w
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        planes = [cv2.resize(plane, (w, h), interpolation=interpolation) for plane in flow[0]]
        return np.stack([planes[0] * np.float32(w / width), planes[1] * np.float32(h / height)], axis=2)


def _inputs(inputs: Mapping[str, Shape], path: Path) -> tuple[tuple[str, str], tuple[int, int]]:
    """Names of the two pictures, in the file's order, and their (h, w)."""
    names, shapes = list(inputs), list(inputs.values())
    fits = len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 4 and shapes[0][1] == 3
    if not fits or not all(isinstance(n, int) for n in shapes[0][2:]):
        raise ModelError(
            f"flow model {path}: needs two inputs [1, 3, h, w] of one fixed size, it has "
            f"{', '.join(f'{name} {list(shape)}' for name, shape in inputs.items())}"
        )
    return (names[0], names[1]), (int(shapes[0][2]), int(shapes[0][3]))


def _output(outputs: Mapping[str, Shape], path: Path) -> str:
    """Name of the flow field."""
    fields = [(name, shape) for name, shape in outputs.items() if len(shape) == 4 and shape[1] == 2]
    if not fields:
        raise ModelError(
            f"flow model {path}: needs an output [1, 2, H, W], it has "
            f"{', '.join(f'{name} {list(shape)}' for name, shape in outputs.items())}"
        )
    height = [shape[2] if isinstance(shape[2], int) else 0 for _, shape in fields]
    _, largest = max((pixels, index) for index, pixels in enumerate(height))
    return fields[largest][0]
