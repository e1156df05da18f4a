"""INT8 by static quantisation: convolutions in INT8, everything that decides scores in fp32."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.frames import NetworkInput

_QUANTISED = ["Conv", "Concat", "MaxPool", "Resize"]
"""Sums, and all that follows the convolutions (peaks, masks, scores), stay in fp32."""


class _Frames(CalibrationDataReader):
    def __init__(self, frames: Iterable[NetworkInput]) -> None:
        self._frames = iter(frames)

    def get_next(self) -> dict[str, np.ndarray] | None:
        frame = next(self._frames, None)
        return None if frame is None else frame.feeds()


def output_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions whose result reaches an output without passing another convolution."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def meets_convolution(node: onnx.NodeProto, seen: set[str]) -> bool:
        for output in node.output:
            for reader in readers.get(output, []):
                if reader.op_type == "Conv":
                    return True
                if reader.name not in seen:
                    seen.add(reader.name)
                    if meets_convolution(reader, seen):
                        return True
        return False

    return [n.name for n in model.graph.node if n.op_type == "Conv" and not meets_convolution(n, set())]


def quantise(source: Path, out: Path, frames: Iterable[NetworkInput]) -> None:
    """Quantise an fp32 graph, weights per channel, activations by their range over `frames`."""
    prepared = out.with_suffix(".prepared.onnx")
    root = logging.getLogger()
    level = root.level
    # The quantiser logs advice for other backends at warning level, on the root logger.
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        inner = (n.name for n in model.graph.node if n.op_type in _QUANTISED and n.name)
        tail = set(output_convolutions(model)) | _after_convolutions(model) | _image_convolutions(model)
        quantize_static(
            str(prepared),
            str(out),
            _Frames(frames),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[n for n in inner if n not in tail],
            op_types_to_quantize=_QUANTISED,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)


def _image_convolutions(model: onnx.ModelProto) -> set[str]:
    """Names of the convolutions on the image itself: with three channels INT8 is slower than fp32."""
    return {n.name for n in model.graph.node if n.op_type == "Conv" and n.input[0] == "image"}


def _after_convolutions(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that depend on an output convolution: the read-out of masks and scores."""
    tainted = set(output_convolutions(model))
    values = {o for n in model.graph.node if n.name in tainted for o in n.output}
    names: set[str] = set()
    for node in model.graph.node:
        if any(name in values for name in node.input):
            values.update(node.output)
            names.add(node.name)
    return names
