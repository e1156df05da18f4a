"""ONNX files of other people's networks, with the metadata the engine's adapters read."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from engine.errors import ModelError, StoreError, UsageError
from engine.perceive.backends.choose import open_runner
from engine.perceive.backends.runner import ModelFile, Request
from export.graph import set_metadata

_OPSET = 18
_LIMIT = 1e-3
"""Largest difference from the network, as a share of the output's largest value. One in twenty values may be beyond:
detections of equal scores change places."""
_SHARE = 0.95


def write(
    network: nn.Module, size: tuple[int, int], outputs: tuple[str, ...], metadata: Mapping[str, str], out: Path
) -> dict[str, float]:
    """Export a network of one picture, run both on the same noise, and keep the file only if they agree.

    The exporter that traces is the one torchvision's detectors are written for: how many regions survive depends
    on the picture.

    Args:
        network: takes float32 [1, 3, h, w], gives a tuple of arrays.
        size: (h, w).
        outputs: names of the arrays.
        metadata: what adapters read, see docs/third_party.md.
        out: the file.

    Returns:
        Per output, the difference that 95 % of the values stay below, as a share of the output's largest value.

    Raises:
        UsageError, StoreError: `out` is no name for an ONNX file, or its folder does not exist.
        ModelError: the export differs from the network.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}: give a name that ends in .onnx")
    if not out.parent.is_dir():
        raise StoreError(f"--out {out}: folder {out.parent} does not exist; create it first")
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        made = Path(folder) / out.name
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about sizes that are fixed here
            expected = [value.numpy() for value in network(image)]
            torch.onnx.export(
                network,
                (image,),
                str(made),
                input_names=["image"],
                output_names=list(outputs),
                opset_version=_OPSET,
                dynamo=False,
                dynamic_axes={
                    name: {0: "n"} for name, value in zip(outputs, expected, strict=True) if value.shape[0] != 1
                },
            )
        model = onnx.load(made)
        set_metadata(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save(model, made)
        runner = open_runner(Request(ModelFile.read(made)), "onnxruntime")
        found = runner.run({"image": image.numpy()}, outputs)
        differences = {name: _difference(found[name], value) for name, value in zip(outputs, expected, strict=True)}
        worst = max(differences, key=lambda name: differences[name])
        if differences[worst] > _LIMIT:
            raise ModelError(
                f"{out}: output '{worst}' differs by {differences[worst]:.2g} of its range, {_LIMIT} is allowed"
            )
        made.replace(out)
    return differences


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if not found.size:
        return 0.0
    return float(np.quantile(np.abs(found - expected), _SHARE) / max(np.abs(expected).max(), 1e-6))
