"""INT8 by static quantisation: inner convolutions in INT8, the stem and everything that decides scores in fp32."""

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from engine.errors import UsageError
from export.calibrate import histograms, tensor_ranges
from export.frames import NetworkInput

_QUANTISED = ["Conv", "Relu", "Concat", "MaxPool", "Resize"]
"""Sums, and all that follows the convolutions (peaks, masks, scores), stay in fp32.

With its rectifier among them, a convolution is rounded once, behind it: the rectifier is what the range clips. Rounded
in front of it too, half the levels would go to values that are thrown away, and what follows would not run in INT8.
"""


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


def prepare(source: Path, scratch: Path) -> onnx.ModelProto:
    """The fp32 graph with shapes inferred and batch normalisation folded: what the quantiser works on."""
    with _quiet():
        quant_pre_process(str(source), str(scratch), skip_symbolic_shape=True)
    model = onnx.load(scratch)
    scratch.unlink()
    return model


def quantisable(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that go to INT8 unless told otherwise, in the order of the graph."""
    tail = set(output_convolutions(model)) | _after_convolutions(model) | stem(model)
    return [n.name for n in model.graph.node if n.op_type in _QUANTISED and n.name and n.name not in tail]


def layers(model: onnx.ModelProto) -> list[str]:
    """The quantisable nodes that stand for a layer each: a rectifier goes with what is before it."""
    rectifiers = {n.name for n in model.graph.node if n.op_type == "Relu"}
    return [name for name in quantisable(model) if name not in rectifiers]


def activations(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors whose range may matter: what quantisable nodes read and write, and what follows at once."""
    constants = {c.name for c in model.graph.initializer}
    inner = set(quantisable(model))
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in inner:
            names.update(dict.fromkeys(n for n in (*node.input, *node.output) if n and n not in constants))
    # A rectifier behind a convolution is folded into it, and its output's range is the one that counts.
    for node in model.graph.node:
        if node.op_type == "Relu" and node.input[0] in names:
            names[node.output[0]] = None
    return list(names)


def write_quantised(model: onnx.ModelProto, out: Path, ranges: TensorsData, keep: Collection[str] = ()) -> None:
    """Write `model` with INT8 weights per channel and activations in `ranges`.

    Args:
        keep: names of nodes that stay in fp32.

    Raises:
        UsageError: a name that is no quantisable node.
    """
    nodes = quantisable(model)
    if unknown := sorted(set(keep) - set(nodes)):
        raise UsageError(f"--keep {unknown[0]}: no quantisable node; they are {', '.join(nodes)}")
    chosen = [name for name in nodes if name not in set(keep)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        quantiser = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=chosen,
            # An empty list of nodes to quantise would mean all of them.
            nodes_to_exclude=[n.name for n in model.graph.node if n.name not in set(chosen)],
            op_types_to_quantize=_QUANTISED,
            extra_options={},
        )
        quantiser.quantize_model()
    quantiser.model.save_model_to_file(str(out))


def quantise(
    source: Path, out: Path, frames: Iterable[NetworkInput], method: str = "percentile", keep: Collection[str] = ()
) -> None:
    """Quantise an fp32 graph: weights per channel, activations by their range over `frames`.

    Args:
        method: how the range follows from the values seen, see `export.calibrate`.
        keep: names of nodes that stay in fp32.
    """
    model = prepare(source, out.with_suffix(".prepared.onnx"))
    ranges = tensor_ranges(histograms(model, activations(model), frames), method)
    write_quantised(model, out, ranges, keep)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice for other backends, which it logs at warning level on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def stem(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that see one input only, up to and with the one where inputs meet.

    These have few channels, where INT8 is no faster than fp32, and they read raw values, where one outlier of the
    motion decides the step of all: in fp32 the whole is faster and its masks closer (`python -m export sensitivity`).
    A network with one input keeps in fp32 only what reads it.
    """
    inputs = {i.name for i in model.graph.input} - {c.name for c in model.graph.initializer}
    seen = {name: frozenset((name,)) for name in inputs}
    names: set[str] = set()
    for node in model.graph.node:
        sources = frozenset().union(*(seen[name] for name in node.input if name in seen))
        joins = len(sources) > 1 and all(len(seen[name]) == 1 for name in node.input if name in seen)
        alone = len(inputs) > 1 and len(sources) == 1
        if sources and (joins or alone or (len(inputs) == 1 and inputs & set(node.input))):
            names.add(node.name)
        seen.update(dict.fromkeys(node.output, sources))
    return names


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
