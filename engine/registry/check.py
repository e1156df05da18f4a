"""Whether a model file can run at all: it loads, follows the contract, and answers with finite numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.config import PerceiveConfig
from engine.errors import EngineError, ModelError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver

_FRAMES = 3


def check_model(path: Path) -> None:
    """Run a model file for a few frames of moving texture, on the CPU with one thread.

    Raises:
        ModelError: what is wrong with it.
    """
    try:
        try_out(Network(path, device="cpu", backend="onnxruntime", threads=1))
    except EngineError:
        raise
    except Exception as error:  # whatever the runtime raises on a strange graph
        raise ModelError(f"model {path}: cannot run ({' '.join(str(error).split())[:160]})") from error


def try_out(network: Network, between: Callable[[], None] = lambda: None) -> None:
    """Run a loaded model on a few frames of moving texture.

    Args:
        between: called before each of them, to let a running engine breathe.

    Raises:
        ModelError: its outputs are not finite.
    """
    height, width = network.size
    texture = np.random.default_rng(0).integers(0, 256, (height, width + 8 * _FRAMES, 3), np.uint8)
    perceiver = Perceiver(network, PerceiveConfig())
    for index in range(_FRAMES):
        between()
        image = np.ascontiguousarray(texture[:, 8 * index : 8 * index + width])
        perceiver.step(Frame(image, index, 0, "check"))
