"""A network of the model contract that costs next to nothing, for runs that test everything but the network.

Nothing in it is learned: foreground is what moves against the camera, the embedding is colour, and the proposals are
what moves within overlapping columns of the picture. All outputs are there, so that every cue is on.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.perceive.motion import FEATURE_CHANNELS, FEATURE_SIZE, MOTION_DEFINITION

_STRIDE = 4
_COLUMNS = 7
"""Proposals; each is two steps wide and begins one step after the one before."""

_LEVEL, _SLOPE = 0.5, 8.0
"""Residual motion at which foreground and background are equally likely, and how sharply they part."""


def write_small_model(path: Path) -> Path:
    """Write the ONNX file and return its path.

    Inputs `image` f32[1, 3, 128, 224] and `motion` f32[1, 5, 128, 224]; outputs at a quarter of that size: `masks`
    [1, 7, 32, 56] logits, `scores` [1, 7], `background` [1, 1, 32, 56], `embedding` [1, 3, 32, 56].
    """
    height, width = FEATURE_SIZE
    h, w = height // _STRIDE, width // _STRIDE
    step = w // (_COLUMNS + 1)
    outside = np.full((1, _COLUMNS, h, w), 20.0, np.float32)
    for column in range(_COLUMNS):
        outside[0, column, :, column * step : (column + 2) * step] = 0.0
    constants = {
        "first": np.array([0], np.int64),
        "second": np.array([2], np.int64),
        "axis": np.array([1], np.int64),
        "level": np.array(_LEVEL, np.float32),
        "slope": np.array(_SLOPE, np.float32),
        "outside": outside,
    }
    pool = {"kernel_shape": [_STRIDE, _STRIDE], "strides": [_STRIDE, _STRIDE]}
    nodes = [
        helper.make_node("Slice", ["motion", "first", "second", "axis"], ["residual"]),
        helper.make_node("Abs", ["residual"], ["magnitude"]),
        helper.make_node("AveragePool", ["magnitude"], ["pooled"], **pool),
        helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["mean", "level"], ["above"]),
        helper.make_node("Mul", ["above", "slope"], ["moves"]),
        helper.make_node("Neg", ["moves"], ["rests"]),
        helper.make_node("Sigmoid", ["rests"], ["background"]),
        helper.make_node("Sub", ["moves", "outside"], ["masks"]),
        helper.make_node("ReduceMax", ["masks"], ["strongest"], axes=[2, 3], keepdims=0),
        helper.make_node("Sigmoid", ["strongest"], ["scores"]),
        helper.make_node("AveragePool", ["image"], ["embedding"], **pool),
    ]
    inputs = {"image": [1, 3, height, width], "motion": [1, FEATURE_CHANNELS, height, width]}
    outputs = {
        "masks": [1, _COLUMNS, h, w],
        "scores": [1, _COLUMNS],
        "background": [1, 1, h, w],
        "embedding": [1, 3, h, w],
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {
        "contract": "1",
        "name": "small",
        "motion": MOTION_DEFINITION,
        "normalisation": json.dumps({"mean": [0.5] * 3, "std": [0.25] * 3, "scale": 1 / 255, "channels": "RGB"}),
        "stride": str(_STRIDE),
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
