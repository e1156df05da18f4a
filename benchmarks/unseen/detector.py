"""The detector: the compact network on stills, asked image by image, and as the model file the engine loads."""

import json
import logging
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from scipy.special import expit
from torch import Tensor, nn

from benchmarks.unseen.plan import SIZE
from engine.errors import ModelError
from engine.perceive.motion import FEATURE_CHANNELS, MOTION_DEFINITION
from export.graph import OUTPUTS, set_metadata
from learning.average_precision import Answer
from learning.baselines import SoftAnswer, without_copies
from learning.batches import MEAN, STD
from learning.networks.compact import MASK_STRIDE, Compact, Proposals

COPY_IOU = 0.7
"""Two masks that overlap more are one detection twice; the better-scored one stays."""

_LEAST_SCORE = 0.01
_MIN_AREA_PX = 40
_OPSET = 18
_PARITY = 2e-3


def network_image(image: np.ndarray) -> Tensor:
    """Normalised float32 [1, 3, h, w] of uint8 [h, w, 3] BGR."""
    rgb = (image[..., ::-1].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32))


def no_motion(image: Tensor) -> Tensor:
    """The motion input of images [B, 3, h, w] that have none."""
    return torch.zeros(len(image), FEATURE_CHANNELS, image.shape[2] // 2, image.shape[3] // 2)


class StillNetwork(nn.Module):
    """The compact network with its motion input fixed to zero: a detector of single images."""

    def __init__(self, network: Compact) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Proposals:
        """Outputs of the model contract for image [1, 3, h, w]."""
        return self.network(image, no_motion(image))  # type: ignore[no-any-return]


@torch.no_grad()
def soft_masks(network: Compact, image: np.ndarray) -> SoftAnswer:
    """All masks of an image uint8 [h, w, 3] BGR whose sides are multiples of 32, at image size, specks left out."""
    h, w = image.shape[:2]
    found = StillNetwork(network)(network_image(image))
    scores = found.scores[0].numpy()
    logits = found.masks[0].numpy()
    chosen = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= _LEAST_SCORE]
    large = [cv2.resize(logits[i], (w, h), interpolation=cv2.INTER_LINEAR) for i in chosen]
    kept = [i for i, mask in enumerate(large) if np.count_nonzero(mask > 0) >= _MIN_AREA_PX]
    stacked = np.array([large[i] for i in kept], np.float32).reshape(-1, h, w)
    return SoftAnswer(expit(stacked), scores[[chosen[i] for i in kept]])


def detections(network: Compact, image: np.ndarray) -> Answer:
    """What the detector answers for one image: masks bool [N, h, w] without copies, best first."""
    return without_copies(soft_masks(network, image).hard(), COPY_IOU)


def write_model(network: Compact, path: Path, name: str) -> None:
    """Write the model file (fp32 ONNX, image input only) and check that it agrees with the network.

    Raises:
        ModelError: its outputs differ from the network's.
    """
    still = StillNetwork(network).eval()
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    image = network_image(cv2.GaussianBlur(picture, (0, 0), 4))
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    partial = path.with_suffix(".part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                still,
                (image,),
                str(partial),
                input_names=["image"],
                output_names=list(OUTPUTS),
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    model = onnx.load(partial)
    normalisation = {"mean": list(MEAN), "std": list(STD), "scale": 1 / 255, "channels": "RGB"}
    set_metadata(
        model,
        {
            "contract": "1",
            "name": name,
            "normalisation": json.dumps(normalisation),
            "motion": MOTION_DEFINITION,
            "stride": str(MASK_STRIDE),
            "size": f"{SIZE[0]}x{SIZE[1]}",
        },
    )
    onnx.save(model, partial)
    session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
    background = session.run(["background"], {"image": image.numpy()})[0]
    with torch.no_grad():
        error = float(np.abs(background - still(image).background.numpy()).mean())
    if not error <= _PARITY:
        raise ModelError(f"{path}: background differs from its network by {error:.4f}, at most {_PARITY} is allowed")
    os.replace(partial, path)
