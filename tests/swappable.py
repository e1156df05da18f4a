"""Models to swap, made from small or shipped ones: other weights, other hashes, broken in many ways."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.models import motion_model


def variant(path: Path, mark: object, metadata: dict[str, str] | None = None) -> Path:
    """The motion model with another hash for every `mark`."""
    return motion_model(path, {"mark": str(mark), **(metadata or {})})


def with_constant(path: Path, name: str, value: float, mark: object = 0) -> Path:
    """The motion model with one of its constants, `slope` or `level`, replaced."""
    model = onnx.load(variant(path, mark))
    for constant in model.graph.initializer:
        if constant.name == name:
            constant.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), name))
    onnx.save(model, path)
    return path


def blind_to_blank_frames(path: Path) -> Path:
    """The motion model, but not a number wherever a frame has one colour only."""
    model = onnx.load(variant(path, "blank"))
    nodes = [node for node in model.graph.node if node.output[0] != "background"]
    last = next(node for node in model.graph.node if node.output[0] == "background")
    sigmoid = onnx.helper.make_node("Sigmoid", last.input, ["usual"])
    extra = [
        onnx.helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        onnx.helper.make_node("ReduceMin", ["image"], ["least"], keepdims=0),
        onnx.helper.make_node("Sub", ["most", "least"], ["spread"]),
        onnx.helper.make_node("Div", ["spread", "spread"], ["one"]),
        onnx.helper.make_node("Mul", ["usual", "one"], ["background"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, sigmoid, *extra])
    onnx.save(model, path)
    return path


def noisy(source: Path, path: Path, seed: int, share: float = 0.01) -> Path:
    """Another model of the same shape: every long float constant (weights, or their scales) changed by `share`."""
    rng = np.random.default_rng(seed)
    model = onnx.load(source)
    changed = 0
    for constant in model.graph.initializer:
        value = numpy_helper.to_array(constant)
        if value.dtype == np.float32 and value.size >= 16:
            factor = 1.0 + share * rng.standard_normal(value.shape)
            constant.CopyFrom(numpy_helper.from_array((value * factor).astype(np.float32), constant.name))
            changed += 1
    assert changed
    onnx.save(model, path)
    return path
