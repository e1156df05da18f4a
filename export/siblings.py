"""Convolutions that read the same tensor become one: it is read, and laid out for them, once."""

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper

_CHANNELS = 1


def merge_siblings(model: onnx.ModelProto) -> int:
    """Replace every group of like convolutions of one tensor by one and a split, in place.

    The heads of a network are such a group; each sum stays as it was, only side by side with the others.

    Returns:
        How many convolutions went.
    """
    graph = model.graph
    constants = {c.name: c for c in graph.initializer}
    groups: dict[tuple[object, ...], list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Conv" and all(name in constants for name in node.input[1:]) and _group(node) == 1:
            shape = tuple(constants[node.input[1]].dims[1:])
            attributes = tuple(sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute))
            groups[node.input[0], shape, attributes].append(node)
    merged = [group for group in groups.values() if len(group) > 1]
    for group in merged:
        _merge(graph, group, constants)
    _drop_unread(graph)
    return sum(len(group) - 1 for group in merged)


def _group(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _merge(graph: onnx.GraphProto, group: list[onnx.NodeProto], constants: dict[str, onnx.TensorProto]) -> None:
    weights = [numpy_helper.to_array(constants[node.input[1]]) for node in group]
    biases = [
        numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.zeros(len(weight), weight.dtype)
        for node, weight in zip(group, weights, strict=True)
    ]
    name = f"{group[0].name}_and_siblings"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.concatenate(weights), f"{name}_weight"),
            numpy_helper.from_array(np.concatenate(biases), f"{name}_bias"),
            numpy_helper.from_array(np.array([len(weight) for weight in weights], np.int64), f"{name}_channels"),
        ]
    )
    one = helper.make_node("Conv", [group[0].input[0], f"{name}_weight", f"{name}_bias"], [f"{name}_out"], name)
    one.attribute.extend(group[0].attribute)
    parts = [node.output[0] for node in group]
    split = helper.make_node("Split", [f"{name}_out", f"{name}_channels"], parts, f"{name}_split", axis=_CHANNELS)
    # Where the first one stood: its input is there by then, and nobody reads any of them before.
    place = min(list(graph.node).index(node) for node in group)
    for node in group:
        graph.node.remove(node)
    graph.node.insert(place, split)
    graph.node.insert(place, one)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Leave out constants that no node reads any more."""
    read = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
