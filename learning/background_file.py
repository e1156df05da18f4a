"""ONNX files with one output, the background map of an image: what the teachers hand to the engine."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.graph import set_metadata

_OPSET = 18


def write_background(
    module: nn.Module,
    path: Path,
    size: tuple[int, int],
    *,
    name: str,
    stride: int,
    mean: Sequence[float],
    std: Sequence[float],
    more: Mapping[str, str],
) -> onnx.ModelProto:
    """Export `module`, image f32 [1, 3, H, W] -> background f32 [1, 1, H/stride, W/stride], with its metadata.

    Args:
        size: (H, W).
        mean, std: of the normalisation of RGB pixels / 255.
        more: further metadata.

    Returns:
        The graph, as written.

    Raises:
        OSError: `path` cannot be written.
    """
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    # The exporter reports libraries it does not need at warning level.
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(1, 3, *size),),
                str(path),
                input_names=["image"],
                output_names=["background"],
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    graph = onnx.load(path)
    normalisation = {"mean": list(mean), "std": list(std), "scale": 1 / 255, "channels": "RGB"}
    basics = {
        "contract": "1",
        "name": name,
        "normalisation": json.dumps(normalisation),
        "stride": str(stride),
        "size": f"{size[0]}x{size[1]}",
    }
    set_metadata(graph, {**basics, **more})
    onnx.save(graph, path)
    return graph


def difference(network: Callable[[Tensor], Tensor], path: Path, size: tuple[int, int]) -> float:
    """Largest difference of a probability between a file and what it was made of, over eight smooth random pictures.

    Args:
        network: image f32 [1, 3, H, W] -> background f32 [1, 1, H/stride, W/stride].
        size: (H, W).
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(8):
        coarse = torch.randn(1, 3, size[0] // 16, size[1] // 16, generator=generator)
        image = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
        with torch.no_grad():
            expected = network(image).numpy()
        found = session.run(["background"], {"image": image.numpy()})[0]
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
