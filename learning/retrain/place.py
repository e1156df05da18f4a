"""A judged network becomes the registry's current model: exported, checked, placed."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from engine.registry import Registry
from export.checkpoint import load_checkpoint
from export.convert import Options, export
from learning.retrain.folder import MODEL


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place(folder: Path, replay: Path | None, target: str, registry: Registry, manifest: dict[str, Any]) -> str:
    """Export model.pt of a run and make it the registry's current model; returns the version's name.

    The export is calibrated and checked on the selections of the run and on the old data.

    Args:
        target: "int8" or "onnx".
        manifest: kept beside the model; "parity", "training" and "checkpoint" are added.

    Raises:
        ModelError: the export differs too much from the network; the registry is as it was.
        StoreError: folder or registry cannot be written.
    """
    path = folder / "model.onnx"
    parity = export(folder / MODEL, target, path, Options(data=_calibration(folder, replay)))
    own = {
        "parity": str(parity),
        "training": load_checkpoint(folder / MODEL).summary,
        "checkpoint": sha256_of(folder / MODEL),
    }
    return registry.place(path, finite({**manifest, **own})).name


def _calibration(folder: Path, replay: Path | None) -> Path:
    """A folder of shards of the selections, and of about as many samples of the old data."""
    mixed = folder / "calibration"
    mixed.mkdir(exist_ok=True)
    for prefix in ("train", "held"):
        sources = sorted((folder / "selections").glob(f"{prefix}_*.shard"))
        wanted = sum(_length(shard) for shard in sources)
        for shard in sorted(replay.glob(f"{prefix}_*.shard")) if replay is not None else []:
            if wanted <= 0:
                break
            wanted -= _length(shard)
            sources.append(shard)
        for number, shard in enumerate(sources):
            link = mixed / f"{prefix}_{number:04d}.shard"
            link.unlink(missing_ok=True)
            link.symlink_to(shard.resolve())
    return mixed


def _length(shard: Path) -> int:
    return len(np.load(shard / "origin.npy", mmap_mode="r"))


def finite(content: Any) -> Any:
    """The same with None in place of the numbers that JSON does not have."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
