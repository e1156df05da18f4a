"""python -m learning.amd.export: the object-probability map of a trained AMD as background cue of the engine.

The file follows the model contract with one output: `image` in, `background` = 1 - S_object out, at stride 4.
"""

import argparse
import copy
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import EngineError, ModelError, StoreError, UsageError
from learning.amd.checkpoint import load_amd
from learning.amd.clips import SIZE
from learning.background_file import difference, write_background
from learning.networks.amd import MEAN, STD, Amd

_TOLERANCE = 1e-3
"""Largest difference of a probability between file and network: both compute in single precision."""

_LEAST_SIZE_PX = 32


class BackgroundMap(nn.Module):
    """One minus the soft segment that is the object, [B, 1, H/s, W/s], of a normalised image [B, 3, H, W]."""

    def __init__(self, network: Amd, channel: int) -> None:
        super().__init__()
        self.appearance = copy.deepcopy(network.appearance).float().eval()
        self.channel = channel

    def forward(self, image: Tensor) -> Tensor:
        soft = torch.softmax(self.appearance(image), dim=1)
        return 1 - soft[:, self.channel : self.channel + 1]


def export(network: Amd, channel: int, out: Path, training: str, size: tuple[int, int] = SIZE) -> float:
    """Write `out`; return the largest difference of a probability between it and the network.

    Args:
        training: one line on how the network came about, for the metadata.
        size: (h, w) of the image input, multiples of 32.

    Raises:
        UsageError: another size.
        ModelError: the file disagrees with the network; then none is left.
        StoreError: `out` cannot be written.
    """
    if any(side <= 0 or side % _LEAST_SIZE_PX for side in size):
        raise UsageError(f"--size {size[0]}x{size[1]}: both must be multiples of {_LEAST_SIZE_PX}")
    module = BackgroundMap(network.cpu(), channel).eval()
    part = out.with_name(f"{out.name}.part")
    try:
        write_background(
            module,
            part,
            size,
            name=out.stem,
            stride=network.appearance.stride,
            mean=MEAN,
            std=STD,
            more={
                "segments": str(network.config.segments),
                "object_segment": str(channel),
                "training": training,
            },
        )
        worst = difference(module, part, size)
        if worst > _TOLERANCE:
            raise ModelError(f"{out}: differs from its network by {worst:.4f} (limit {_TOLERANCE}): not written")
        part.replace(out)
    except OSError as error:
        raise StoreError(f"--out {out}: {error.strerror or error}: give a file that can be written") from None
    finally:
        part.unlink(missing_ok=True)
    return worst


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.amd.export", description=__doc__)
    parser.add_argument("model", type=Path, help="model.pt of python -m learning.pretrain --objective amd")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    args = parser.parse_args(argv)
    try:
        network, channel, training = load_amd(args.model)
        summary = f"amd: {training.get('step')} updates, seed {training.get('seed')}, rate {training.get('rate')}"
        worst = export(network, channel, args.out, summary)
        print(f"{args.out}: segment {channel} of {network.config.segments}, within {worst:.1e} of the network")
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
