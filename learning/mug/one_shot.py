"""One-shot read-out: labels of the first frame handed from frame to frame by affinity of features (MuG, Eq. 17)."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import UsageError
from learning.mug.losses import co_attention
from learning.mug.model import to_input
from learning.networks.mug import SEEN, STRIDE, Mug


class OneShot:
    """Follows every object of a first frame.

    v_m = sum_n A_(t-1,t)(n, m) y_n over the cells n of the frame before; a cell's label is the largest of v, and the
    next frame starts from it. Nothing is fine-tuned.

    Args:
        network: in evaluation mode.
        image: the first frame, uint8 [H, W, 3] BGR.
        labels: integer [H, W], 0 is background.
        size: rows and columns the network sees, multiples of 32.

    Raises:
        UsageError: nothing is labelled.
    """

    def __init__(self, network: Mug, image: np.ndarray, labels: np.ndarray, size: tuple[int, int] = SEEN) -> None:
        self.values = np.unique(np.append(labels, 0))
        if len(self.values) < 2:
            raise UsageError("the first frame labels nothing: give at least one object")
        self._network, self._size = network, size
        self._grid = (size[0] // STRIDE, size[1] // STRIDE)
        shares = [
            cv2.resize((labels == value).astype(np.float32), self._grid[::-1], interpolation=cv2.INTER_AREA)
            for value in self.values
        ]
        self._labels = self._one_hot(torch.from_numpy(np.stack(shares)))
        with torch.no_grad():
            self._before = network.backbone(to_input(image, size))

    def _one_hot(self, votes: Tensor) -> Tensor:
        """Labels float32 [L, P] of votes [L, h, w]."""
        best = votes.flatten(1).argmax(dim=0)
        return F.one_hot(best, len(self.values)).t().float()

    @torch.no_grad()
    def step(self, image: np.ndarray) -> np.ndarray:
        """Labels of the next frame uint8 [H, W, 3] BGR: integer [H, W] with the values of the first frame."""
        x = self._network.backbone(to_input(image, self._size))
        affinity = co_attention(self._before, x, self._network.config.temperature)[0]
        votes = (self._labels @ affinity).reshape(-1, *self._grid)
        self._labels, self._before = self._one_hot(votes), x
        full = [cv2.resize(vote.numpy(), image.shape[1::-1], interpolation=cv2.INTER_LINEAR) for vote in votes]
        return self.values[np.argmax(full, axis=0)]
