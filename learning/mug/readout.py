"""Object-level read-out: the foreground of a frame, seen with eight frames of its video (MuG, section 3.3)."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.errors import UsageError
from learning.mug.bursts import SEGMENTS
from learning.mug.model import to_input
from learning.networks.mug import SEEN, Mug

WINDOW = 64
"""Frames that the streaming memory reaches back."""


class ObjectReadOut:
    """Streaming and causal: the memory holds one frame of each of eight equal segments of the last `window` frames.

    Args:
        network: in evaluation mode.
        window: frames, at least eight.
        size: rows and columns the network sees, multiples of 32.

    Raises:
        UsageError: `window` too short.
    """

    def __init__(self, network: Mug, window: int = WINDOW, size: tuple[int, int] = SEEN) -> None:
        if window < SEGMENTS:
            raise UsageError(f"window {window}: must be at least {SEGMENTS}, the memory holds one frame per segment")
        self._network, self._size = network, size
        self._segment = window // SEGMENTS
        self._memory: deque[Tensor] = deque(maxlen=SEGMENTS)
        self._seen = 0

    def step(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Foreground probability of a frame uint8 [H, W, 3] BGR: float32 [h, w] with its memory, and on its own."""
        return self.read(features(self._network, image, self._size))

    @torch.no_grad()
    def read(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """As `step`, from the features [1, C, h, w] of the frame."""
        # The first frame remembers nothing but itself.
        memory = list(self._memory) or [self._network.memorise(x)]
        with_memory = self._network.video_logits(self._network.recall(x, torch.stack(memory, dim=1)))
        if self._seen % self._segment == 0:
            self._memory.append(self._network.memorise(x))
        self._seen += 1
        alone = self._network.frame_logits(x)
        return torch.sigmoid(with_memory)[0, 0].numpy(), torch.sigmoid(alone)[0, 0].numpy()

    @property
    def remembered(self) -> int:
        """Frames in the memory."""
        return len(self._memory)


@torch.no_grad()
def features(network: Mug, image: np.ndarray, size: tuple[int, int] = SEEN) -> Tensor:
    """x [1, C, h, w] of a frame uint8 [H, W, 3] BGR."""
    return network.backbone(to_input(image, size))


@torch.no_grad()
def whole_video(network: Mug, frames: Sequence[Tensor]) -> list[np.ndarray]:
    """Foreground probability of every frame with the middle frames of eight equal segments of the whole video.

    As in the paper, not causal; a frame is not part of its own memory.

    Args:
        frames: features [1, C, h, w] of at least two.

    Returns:
        float32 [h, w] per frame.

    Raises:
        UsageError: a single frame.
    """
    if len(frames) < 2:
        raise UsageError(f"{len(frames)} frame: a video has at least 2")
    edges = np.arange(SEGMENTS + 1) * len(frames) / SEGMENTS
    kept = np.unique(((edges[:-1] + edges[1:]) / 2).astype(int))
    memory = {int(i): network.memorise(frames[i]) for i in kept}
    maps = []
    for index, x in enumerate(frames):
        rest = torch.stack([cells for i, cells in memory.items() if i != index], dim=1)
        maps.append(torch.sigmoid(network.video_logits(network.recall(x, rest)))[0, 0].numpy())
    return maps
