"""The reconstruction objective of AMD: segment means (Eq. 3), segment flow (Eq. 5), photometric distance (Eq. 7)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from learning.amd.warp import inside, warp

L1_WEIGHT, SSIM_WEIGHT = 0.15, 0.85
_C1, _C2 = 0.01**2, 0.03**2
_OCCLUSION_SLOPE, _OCCLUSION_PX2 = 0.01, 1.0
"""Forward-backward check: |F + F'|^2 may be this share of |F|^2 + |F'|^2, plus this many square pixels."""


def segment_means(features: Tensor, masks: Tensor) -> Tensor:
    """V_m = sum(V * S_m) / sum(S_m) (Eq. 3).

    Args:
        features: V, [B, d, h, w].
        masks: S, [B, c, h, w], soft.

    Returns:
        [B, c, d].
    """
    weights = masks.flatten(2)
    sums = torch.bmm(weights, features.flatten(2).transpose(1, 2))
    return sums / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)


def segment_flow(flows: Tensor, masks: Tensor) -> Tensor:
    """F = sum_m F_m S_m (Eq. 5): [B, 2, h, w] from flows [B, c, 2] and masks [B, c, h, w]."""
    return torch.einsum("bck,bchw->bkhw", flows, masks)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity over 3x3 windows, [B, C, h - 2, w - 2]: windows inside the picture only."""
    mean_a, mean_b = F.avg_pool2d(a, 3, 1), F.avg_pool2d(b, 3, 1)
    var_a = F.avg_pool2d(a * a, 3, 1) - mean_a * mean_a
    var_b = F.avg_pool2d(b * b, 3, 1) - mean_b * mean_b
    both = F.avg_pool2d(a * b, 3, 1) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + _C1) * (2 * both + _C2)
    return likeness / ((mean_a * mean_a + mean_b * mean_b + _C1) * (var_a + var_b + _C2))


def photometric(target: Tensor, rebuilt: Tensor, visible: Tensor) -> Tensor:
    """D of Eq. 7: 0.15 |difference| + 0.85 (1 - SSIM) / 2, mean over the visible pixels.

    Args:
        target, rebuilt: [B, 3, h, w] in [0, 1].
        visible: [B, 1, h, w], 0 where nothing can be rebuilt. A window counts as far as its centre does.

    Returns:
        [B], one distance per picture.
    """
    difference = (target - rebuilt).abs().mean(dim=1, keepdim=True)[:, :, 1:-1, 1:-1]
    unlike = ((1 - ssim(target, rebuilt)) / 2).clamp(0, 1).mean(dim=1, keepdim=True)
    weights = visible[:, :, 1:-1, 1:-1]
    distance = L1_WEIGHT * difference + SSIM_WEIGHT * unlike
    return (distance * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp_min(1.0)


@torch.no_grad()
def visibility(flow: Tensor, back: Tensor) -> Tensor:
    """1 where the way there and back ends where it began and stays in the picture, [B, 1, h, w].

    Args:
        flow: F from the target to the source, [B, 2, h, w] in pixels.
        back: F' from the source to the target.
    """
    returned = warp(back, flow)
    gap = ((flow + returned) ** 2).sum(dim=1, keepdim=True)
    length = (flow * flow + returned * returned).sum(dim=1, keepdim=True)
    return (gap <= _OCCLUSION_SLOPE * length + _OCCLUSION_PX2).to(flow.dtype) * inside(flow)
