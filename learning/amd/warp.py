"""Backward warping: a picture looked up where a displacement field points."""

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """X(p + F(p)), bilinear, the border repeated outside (Eq. 6).

    Args:
        image: [B, C, h, w].
        flow: [B, 2, h, w], (dx, dy) in pixels of this grid.
    """
    height, width = image.shape[2:]
    x, y = _places(flow)
    # With align_corners=False, -1 and 1 are the outer edges of the border pixels.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def inside(flow: Tensor) -> Tensor:
    """1 where p + F(p) is within the picture, [B, 1, h, w]."""
    height, width = flow.shape[2:]
    x, y = _places(flow)
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).to(flow.dtype)[:, None]


def _places(flow: Tensor) -> tuple[Tensor, Tensor]:
    height, width = flow.shape[2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    return x, y
