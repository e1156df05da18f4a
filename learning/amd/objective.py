"""What AMD minimises: each frame of a pair rebuilt from the other along the segment flow (Eq. 7, both directions)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from learning.amd.losses import photometric, visibility
from learning.amd.warp import inside, warp
from learning.networks.amd import Amd, Segmented

STRIDES = (1, 2)
"""The pictures are compared at these strides: a coarse one sees farther."""


def to_images(pairs: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """First and second frames, [B, 3, h, w] in [0, 1], of uint8 [B, 2, 3, h, w]."""
    tensor = torch.as_tensor(pairs)
    first, second = ((tensor[:, side].float() / 255).contiguous(memory_format=torch.channels_last) for side in (0, 1))
    return first, second


def distances(one: Segmented, other: Segmented, first: Tensor, second: Tensor, *, occlusion: bool = True) -> Tensor:
    """Photometric distance of each pair, [B], the mean over both directions and `STRIDES`.

    Masks are those of the rebuilt frame, for the flow is looked up there: X'_j(p) = X_i(p + F(p)).

    Args:
        one, other: what the network says of `first` towards `second`, and back.
        occlusion: leave out pixels that fail the forward-backward check; else only those that leave the picture.
    """
    width = first.shape[3]
    total = first.new_zeros(len(first))
    for stride in STRIDES:
        a, b = F.avg_pool2d(first, stride), F.avg_pool2d(second, stride)
        size = (a.shape[2], a.shape[3])
        there, back = one.flow(size, width), other.flow(size, width)
        for target, source, flow, opposite in ((a, b, there, back), (b, a, back, there)):
            visible = visibility(flow, opposite) if occlusion else inside(flow).detach()
            total = total + photometric(target, warp(source, flow), visible)
    return total / (2 * len(STRIDES))


def reconstruction(network: Amd, first: Tensor, second: Tensor, *, occlusion: bool = True) -> Tensor:
    """Mean distance of a batch; the network runs in bfloat16 where that is safe."""
    with torch.autocast(first.device.type, torch.bfloat16):
        one, other = network(first, second)
    return distances(one, other, first, second, occlusion=occlusion).mean()


@torch.no_grad()
def held_out_distances(network: Amd, pairs: np.ndarray, *, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every pair uint8 [N, 2, 3, h, w] in float32, rebuilt and, for comparison, unmoved: float [N] each.

    No pixel is left out but those that leave the picture: what the check hides would be free to go wrong.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    rebuilt, unmoved = [], []
    for begin in range(0, len(pairs), batch):
        first, second = (image.to(device) for image in to_images(pairs[begin : begin + batch]))
        one, other = network(first, second)
        rebuilt.append(distances(one, other, first, second, occlusion=False))
        still = one._replace(flows=torch.zeros_like(one.flows))
        unmoved.append(distances(still, still, first, second, occlusion=False))
    network.train(was_training)
    return torch.cat(rebuilt).cpu().numpy(), torch.cat(unmoved).cpu().numpy()
