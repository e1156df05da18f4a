"""Small ONNX files that follow the model contract, built here: real models with known answers."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.perceive.motion import FEATURE_CHANNELS, MOTION_DEFINITION

SIZE = (256, 448)
GRID = (64, 112)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    constants: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a checked ONNX file of these parts."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    base = {
        "contract": "1",
        "motion": MOTION_DEFINITION,
        "normalisation": json.dumps({"mean": [0.5] * 3, "std": [0.25] * 3, "scale": 1 / 255, "channels": "RGB"}),
    }
    for key, value in (base | (metadata or {})).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def motion_model(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Background = what moves with the camera: a logistic of the mean residual magnitude per cell.

    No masks, scores or embedding: those cues are off.
    """
    h, w = SIZE
    nodes = [
        helper.make_node("Slice", ["motion", "first", "second", "axis"], ["residual"]),
        helper.make_node("Abs", ["residual"], ["magnitude"]),
        helper.make_node("AveragePool", ["magnitude"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["level", "mean"], ["below"]),
        helper.make_node("Mul", ["below", "slope"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["background"]),
    ]
    return save(
        path,
        nodes,
        {"image": [1, 3, h, w], "motion": [1, FEATURE_CHANNELS, h, w]},
        {"background": [1, 1, *GRID]},
        {
            "first": np.array([0], np.int64),
            "second": np.array([2], np.int64),
            "axis": np.array([1], np.int64),
            "level": np.array(0.5, np.float32),
            "slope": np.array(8.0, np.float32),
        },
        metadata,
    )
