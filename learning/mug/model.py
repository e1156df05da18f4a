"""A trained model.pt of MuG, and pictures as it wants them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.errors import ModelError
from learning.batches import MEAN, STD
from learning.networks.mug import SEEN, Mug, MugConfig


def load_model(path: Path) -> Mug:
    """The network of a model.pt or roundN.pt, float32, in evaluation mode.

    Raises:
        ModelError: no such file, or not a network of MuG.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model; give a model.pt of python -m learning.pretrain --objective mug")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["objective"] != "mug":
            raise ValueError(f"its objective is {content['objective']}")
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
        network = Mug(MugConfig(**config))
        network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in content["state"].items()})
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{path} is not a network of MuG ({reason[:100]})") from None
    return network.eval().to(memory_format=torch.channels_last)


def summary(path: Path) -> str:
    """One line of a readable model.pt for the metadata of exported files: steps, minutes, seed."""
    training = torch.load(path, map_location="cpu", weights_only=True)["training"]
    return f"mug, step {training['step']}, minutes {training['minutes']:.1f}, seed {training['seed']}"


def to_input(image: np.ndarray, size: tuple[int, int] = SEEN) -> Tensor:
    """A frame uint8 [H, W, 3] BGR as the network's input: float32 [1, 3, h, w], normalised RGB."""
    if image.shape[:2] != size:
        shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float() / 255
    normalised = (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return normalised[None].contiguous(memory_format=torch.channels_last)
