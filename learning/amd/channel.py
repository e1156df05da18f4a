"""Which segment is the object (Sec. 3.5): the one that moves most, measured, never fixed beforehand."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import UsageError
from learning.amd.objective import to_images
from learning.networks.amd import Amd

RULES = ("flow", "relative")
"""`flow` is the paper's: largest mean segment flow. `relative` (*ours*) first takes away what the picture as a whole
does, sum_m a_m F_m with areas a_m: under a camera that follows the object the background moves most."""

_MIN_AREA = 0.01
"""Mean share of the picture below which a segment is no object but a remainder."""


@dataclass(frozen=True)
class SegmentMotion:
    """Means over pairs, float [c] each.

    Attributes:
        flow: |F_m| in input pixels.
        relative: |F_m - sum_n a_n F_n|.
        area: share of the picture.
    """

    flow: np.ndarray
    relative: np.ndarray
    area: np.ndarray

    def channel(self, rule: str) -> int:
        """The object's channel.

        Raises:
            UsageError: a rule there is not.
        """
        if rule not in RULES:
            raise UsageError(f"--channel {rule} is unknown: choose one of {', '.join(RULES)}")
        score = np.where(self.area >= _MIN_AREA, getattr(self, rule), -1.0)
        return int(score.argmax())


@torch.no_grad()
def segment_motion(network: Amd, batches: Iterable[np.ndarray]) -> SegmentMotion:
    """Mean motion and area of every segment over batches of pairs uint8 [B, 2, 3, h, w]."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    rows = []
    for pairs in batches:
        first, second = (image.to(device) for image in to_images(pairs))
        for side in network(first, second):
            area = side.masks.mean(dim=(2, 3))
            whole = (area[..., None] * side.flows).sum(dim=1, keepdim=True)
            # Weighted by area: what a segment does where it hardly is says nothing.
            flow = side.flows.norm(dim=2) * area
            relative = (side.flows - whole).norm(dim=2) * area
            rows.append(torch.stack([flow.sum(0), relative.sum(0), area.sum(0), torch.ones_like(area).sum(0)]))
    network.train(was_training)
    flow_sum, relative_sum, area_sum, count = torch.stack(rows).sum(0).cpu().double().numpy()
    share = np.maximum(area_sum, 1e-9)
    return SegmentMotion(flow_sum / share, relative_sum / share, area_sum / count)
