"""python -m learning.mug.export: a trained MuG as background cue of the engine.

The file follows the model contract with one output: image -> probability of background of the frame on its own.
Weights are stored in half precision and computed in single precision.
"""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.errors import EngineError, ModelError, StoreError, UsageError
from learning.background_file import difference, write_background
from learning.batches import MEAN, STD
from learning.mug.model import load_model, summary
from learning.networks.mug import LEAST_SIZE_PX, SEEN, STRIDE, Mug

_TOLERANCE = 5e-3
"""Largest difference of a probability between file and network; storing weights in half precision costs a part."""

_SMALL = 64
"""Tensors of fewer values stay in single precision."""


class Background(nn.Module):
    """Background probability [B, 1, H/4, W/4] of an image [B, 3, H, W], normalisations folded into convolutions."""

    def __init__(self, network: Mug) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(network.backbone).eval()
        self.rho = copy.deepcopy(network.rho).eval()
        for module in list(self.backbone.modules()):
            if isinstance(module, nn.Sequential):
                _fold(module)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(-self.rho(self.backbone(image)))


def _fold(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        first, second = layers[index], layers[index + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            layers[index], layers[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def export(model: Path, out: Path, size: tuple[int, int] = SEEN) -> float:
    """Write `out`, and return the largest difference of a probability between it and the network.

    Raises:
        UsageError: a size that is no multiple of 32.
        ModelError: not a network of MuG, or the file disagrees with it; then none is left.
        StoreError: `out` cannot be written.
    """
    if any(side <= 0 or side % LEAST_SIZE_PX for side in size):
        raise UsageError(f"--size {size[0]}x{size[1]}: both must be multiples of {LEAST_SIZE_PX}")
    network = load_model(model)
    module = Background(network).eval()
    part = out.with_name(f"{out.name}.part")
    try:
        graph = write_background(
            module, part, size, name=out.stem, stride=STRIDE, mean=MEAN, std=STD, more={"training": summary(model)}
        )
        _store_in_half(graph)
        onnx.save(graph, part)
        worst = difference(lambda image: torch.sigmoid(-network(image)), part, size)
        if worst > _TOLERANCE:
            raise ModelError(f"{out}: differs from {model} by {worst:.4f} (limit {_TOLERANCE}): not written")
        part.replace(out)
    except OSError as error:
        raise StoreError(f"--out {out}: {error.strerror or error}: give a file that can be written") from None
    finally:
        part.unlink(missing_ok=True)
    return worst


def _store_in_half(model: onnx.ModelProto) -> None:
    """Halve the file: kernels as float16 with a cast, which runtimes resolve once when they load it."""
    casts, kept = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALL:
            kept.append(tensor)
            continue
        half = f"{tensor.name}_half"
        kept.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], name=f"{half}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.mug.export", description=__doc__)
    parser.add_argument("model", type=Path, help="model.pt of python -m learning.pretrain --objective mug")
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--size", default=f"{SEEN[0]}x{SEEN[1]}", help="rows x columns the network sees")
    options = parser.parse_args(arguments)
    try:
        rows, separator, columns = options.size.partition("x")
        if not (separator and rows.isdecimal() and columns.isdecimal()):
            raise UsageError(f"--size {options.size}: must be ROWSxCOLUMNS, such as {SEEN[0]}x{SEEN[1]}")
        worst = export(options.model, options.out, (int(rows), int(columns)))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    size_mb = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size_mb:.1f} MB, differs from the network by {worst:.5f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
