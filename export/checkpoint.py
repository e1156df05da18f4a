"""Reads training checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.errors import ModelError
from learning.networks.compact import Compact, CompactConfig


@dataclass(frozen=True)
class Checkpoint:
    """A trained network ready for export.

    Attributes:
        network: averaged weights, float32, in evaluation mode.
        training: step, minutes, seed and held-out history, as recorded by the training run.
    """

    network: Compact
    training: dict[str, Any]

    @property
    def summary(self) -> str:
        """One line for the metadata of the model."""
        known = {k: self.training[k] for k in ("step", "minutes", "seed") if k in self.training}
        return ", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items())


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a model.pt written by `learning.pretrain`.

    Raises:
        ModelError: the file is missing, is no checkpoint, or holds another network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give a model.pt written by python -m learning.pretrain")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
        network = Compact(CompactConfig(**config))
        network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in content["state"].items()})
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is not a checkpoint of the compact network ({reason[:120]})") from error
    return Checkpoint(network.eval(), dict(content.get("training", {})))
