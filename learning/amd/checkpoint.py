"""model.pt of AMD: weights, size, and the segment that was found to be the object."""

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine.errors import ModelError, UsageError
from learning.networks.amd import Amd, AmdConfig

_NOT_OURS = (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, UsageError, pickle.UnpicklingError)


def model_content(network: Amd, channel: int, training: dict[str, Any]) -> dict[str, Any]:
    """What a model.pt holds: weights in half precision, the size, the object's segment, how it was trained."""
    return {
        "objective": "amd",
        "config": asdict(network.config),
        "channel": channel,
        "state": {n: v.half() if v.is_floating_point() else v for n, v in network.state_dict().items()},
        "training": training,
    }


def load_amd(path: Path) -> tuple[Amd, int, dict[str, Any]]:
    """Network in evaluation mode, object's segment, training record of a model.pt.

    Raises:
        ModelError: missing, or not a model.pt of AMD.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored["objective"] != "amd":
            raise TypeError(f"its objective is {stored['objective']}")
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
        network = Amd(AmdConfig(**config))
        network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in stored["state"].items()})
        channel = int(stored["channel"])
        if not 0 <= channel < network.config.segments:
            raise ValueError(f"segment {channel} of {network.config.segments}")
    except _NOT_OURS as error:
        raise ModelError(f"{path}: not a model.pt of AMD ({' '.join(str(error).split())[:80]})") from None
    return network.eval(), channel, stored["training"]
