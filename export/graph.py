"""Writes the fp32 ONNX graph of a checkpoint, with the metadata of the model contract."""

import copy
import json
import logging
import subprocess
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from engine.perceive.contract import OUTPUTS
from engine.perceive.motion import FEATURE_CHANNELS, MOTION_DEFINITION
from export.checkpoint import Checkpoint
from export.frames import motion_size
from export.siblings import merge_siblings
from learning.batches import MEAN, STD
from learning.networks.compact import MASK_STRIDE
from learning.synthesis.sample import SIZE

INPUTS = ("image", "motion")
_OPSET = 18


def contract_metadata(checkpoint: Checkpoint, name: str, size: tuple[int, int] = SIZE) -> dict[str, str]:
    """The `metadata_props` every model carries; all values are strings."""
    normalisation = {"mean": list(MEAN), "std": list(STD), "scale": 1 / 255, "channels": "RGB"}
    return {
        "contract": "1",
        "name": name,
        "normalisation": json.dumps(normalisation),
        "motion": MOTION_DEFINITION,
        "stride": str(MASK_STRIDE),
        "size": f"{size[0]}x{size[1]}",
        "training": checkpoint.summary,
        "revision": _revision(),
    }


def _revision() -> str:
    here = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"


def set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace the model's metadata."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


class Half(nn.Module):
    """A network computed in half precision between float32 inputs and outputs; masks are read out in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, image: Tensor, motion: Tensor) -> tuple[Tensor, ...]:
        """As the network's own."""
        return tuple(self.network(image.half(), motion.half()))


def write_graph(
    checkpoint: Checkpoint, path: Path, *, size: tuple[int, int] = SIZE, half: bool = False, any_batch: bool = False
) -> None:
    """Export the network by torch's graph-capturing exporter; heads that read the same features become one.

    Args:
        size: (h, w) of the image input, multiples of 32; the network is convolutional and takes any.
        half: float16 weights and arithmetic, for GPUs.
        any_batch: leave the batch free, for several cameras at once; otherwise every shape is fixed.
    """
    count = 2 if any_batch else 1  # the exporter takes a batch of one for a constant
    image = torch.zeros(count, 3, *size)
    motion = torch.zeros(count, FEATURE_CHANNELS, *motion_size(size))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    # The exporter reports libraries it does not need (torchvision) at warning level.
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Half(checkpoint.network).eval() if half else checkpoint.network,
                (image, motion),
                str(path),
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=_OPSET,
                dynamo=True,
                dynamic_shapes=(batch, batch) if any_batch else None,
                optimize=True,
                external_data=False,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    model = onnx.load(path)
    merge_siblings(model)
    onnx.save(model, path)
