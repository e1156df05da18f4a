"""Zero-shot segmentation of a video: per image, and after adaptation to its own frames (Sec. 4.3)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import UsageError
from learning.amd.channel import SegmentMotion, segment_motion
from learning.amd.clips import SIZE
from learning.amd.objective import reconstruction, to_images
from learning.networks.amd import Amd

WEIGHT_DECAY = 1e-6


@dataclass(frozen=True)
class Adaptation:
    """How long and how fast.

    Attributes:
        iterations: updates per video; the paper's 100.
        batch: pairs per update.
        rate: of Adam.
        max_gap: frames between the two of a pair, at most.
    """

    iterations: int = 100
    batch: int = 4
    rate: float = 1e-4
    max_gap: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "rate", "max_gap"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} {getattr(self, name)}: must be above 0")


def fit(image: np.ndarray) -> np.ndarray:
    """A frame uint8 [H, W, 3] BGR as the network is shown it: uint8 [3, *SIZE] RGB."""
    small = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1].transpose(2, 0, 1))


def video_pairs(frames: np.ndarray, max_gap: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random pairs of frames at most `max_gap` apart, half of them mirrored.

    Args:
        frames: uint8 [N, 3, h, w], at least two.

    Returns:
        uint8 [count, 2, 3, h, w].

    Raises:
        UsageError: fewer than two frames.
    """
    if len(frames) < 2:
        raise UsageError(f"{len(frames)} frames: adaptation needs at least 2")
    gap = rng.integers(1, min(max_gap, len(frames) - 1) + 1, count)
    first = (rng.random(count) * (len(frames) - gap)).astype(np.int64)
    pairs = np.stack([frames[first], frames[first + gap]], axis=1)
    mirrored = rng.random(count) < 0.5
    pairs[mirrored] = pairs[mirrored][..., ::-1]
    return pairs


def adapt(network: Amd, frames: np.ndarray, settings: Adaptation | None = None) -> Amd:
    """A copy of the network after `iterations` updates on pairs of one video; no label is seen.

    Args:
        frames: uint8 [N, 3, h, w] RGB, in order.
    """
    settings = settings or Adaptation()
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    adapted = copy.deepcopy(network).train()
    device = next(adapted.parameters()).device
    optimiser = torch.optim.Adam(adapted.parameters(), settings.rate, weight_decay=WEIGHT_DECAY)
    for _ in range(settings.iterations):
        pairs = video_pairs(frames, settings.max_gap, settings.batch, rng)
        first, second = (image.to(device) for image in to_images(pairs))
        loss = reconstruction(adapted, first, second)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapted.parameters(), 5.0)
        optimiser.step()
    return adapted.eval()


def video_motion(network: Amd, frames: np.ndarray, max_gap: int = 3, batch: int = 16) -> SegmentMotion:
    """Mean motion of every segment over the pairs of a video `max_gap` frames apart (or as far as it is long)."""
    gap = min(max_gap, len(frames) - 1)
    pairs = np.stack([frames[:-gap], frames[gap:]], axis=1)
    return segment_motion(network, (pairs[i : i + batch] for i in range(0, len(pairs), batch)))


@torch.no_grad()
def segments(network: Amd, frames: np.ndarray | Sequence[np.ndarray], batch: int = 16) -> Tensor:
    """Soft segments [N, c, h/s, w/s] of frames uint8 [N, 3, h, w], the network in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    stacked = torch.from_numpy(np.stack(list(frames)))
    found = [network.masks(part.to(device).float() / 255).cpu() for part in stacked.split(batch)]
    return torch.cat(found)


def object_masks(soft: Tensor, channel: int, size: tuple[int, int]) -> np.ndarray:
    """Where a segment is the likeliest, bool [N, *size]; soft segments [N, c, h, w] are interpolated first."""
    out = np.empty((len(soft), *size), bool)
    for index in range(len(soft)):
        large = F.interpolate(soft[index : index + 1], size=size, mode="bilinear", align_corners=False)
        out[index] = (large[0].argmax(dim=0) == channel).numpy()
    return out
