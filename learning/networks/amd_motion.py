"""Motion pathway of AMD: features of how one image moves into another, coarse to fine over cost volumes (PWC-Net)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.amd.warp import warp

LEVEL_STRIDES = (16, 8, 4)
_SHARPNESS = 20.0
"""Of the soft arg-max over a cost volume of cosines."""


def cost_volume(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Mean product of `first` at p and `second` at p + d for every d within `radius`, zero outside.

    Args:
        first, second: [B, C, h, w].

    Returns:
        [B, (2 radius + 1)^2, h, w], rows of d_y, then d_x.
    """
    height, width = first.shape[2:]
    padded = F.pad(second, (radius,) * 4)
    shifts = range(2 * radius + 1)
    layers = [
        (first * padded[:, :, y : y + height, x : x + width]).mean(dim=1, keepdim=True) for y in shifts for x in shifts
    ]
    return torch.cat(layers, dim=1)


def expected_shift(costs: Tensor, radius: int) -> Tensor:
    """Mean displacement (dx, dy) under the softmax of a cost volume, [B, 2, h, w] in cells."""
    steps = torch.arange(-radius, radius + 1, dtype=costs.dtype, device=costs.device)
    count = len(steps)
    table = torch.stack([steps.repeat(count), steps.repeat_interleave(count)])
    return torch.einsum("bdhw,cd->bchw", torch.softmax(_SHARPNESS * costs, dim=1), table)


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class MotionPathway(nn.Module):
    """f_M of Eq. 2.

    At each level the second image's features are warped by the motion found so far and compared within a radius.
    *Ours*: the expected shift of each cost volume is part of the motion found, so that there is a signal before
    anything is learned.

    Args:
        widths: channels of the pyramid at strides 4, 8, 16.
        features: channels the decoder of each level leaves.
        radii: of the cost volumes at strides 16, 8, 4.

    Attributes:
        channels: d_v; the last two are the motion found, (dx, dy) in units of `unit_px` input pixels.
    """

    unit_px = 16.0

    def __init__(self, widths: tuple[int, int, int], features: int, radii: tuple[int, int, int]) -> None:
        super().__init__()
        w4, w8, w16 = widths
        self.radii = radii
        self.pyramid4 = nn.Sequential(_layer(3, w4 // 2, 2), _layer(w4 // 2, w4, 2))
        self.pyramid8 = nn.Sequential(_layer(w4, w8, 2), _layer(w8, w8))
        self.pyramid16 = nn.Sequential(_layer(w8, w16, 2), _layer(w16, w16))
        self.decoders, self.shifts = nn.ModuleList(), nn.ModuleList()
        came = 0
        for width, radius in zip((w16, w8, w4), radii, strict=True):
            inputs = (2 * radius + 1) ** 2 + width + 2 + came
            self.decoders.append(nn.Sequential(_layer(inputs, features), _layer(features, features)))
            shift = nn.Conv2d(features, 2, 3, 1, 1)
            nn.init.zeros_(shift.weight)
            nn.init.zeros_(shift.bias)  # type: ignore[arg-type]
            self.shifts.append(shift)
            came = features
        self.channels = features + 2

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Features at strides 16, 8, 4 of a normalised image."""
        x4 = self.pyramid4(image)
        x8 = self.pyramid8(x4)
        return [self.pyramid16(x8), x8, x4]

    def forward(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """V of `first` towards `second`, given as pyramids: [B, d_v, H/4, W/4]."""
        batch, _, height, width = first[0].shape
        motion = first[0].new_zeros(batch, 2, height, width)
        state: Tensor | None = None
        for one, other, decoder, shift, radius in zip(
            first, second, self.decoders, self.shifts, self.radii, strict=True
        ):
            if state is not None:
                motion = 2 * F.interpolate(motion, size=one.shape[2:], mode="bilinear", align_corners=False)
                state = F.interpolate(state, size=one.shape[2:], mode="bilinear", align_corners=False)
                other = warp(other, motion)
            costs = cost_volume(_unit(one), _unit(other), radius) * one.shape[1]
            motion = motion + expected_shift(costs, radius)
            parts = [costs, one, motion / 8] if state is None else [costs, one, motion / 8, state]
            state = decoder(torch.cat(parts, dim=1))
            motion = motion + shift(state)
        assert state is not None
        return torch.cat([state, motion * (LEVEL_STRIDES[-1] / self.unit_px)], dim=1)


def _unit(features: Tensor) -> Tensor:
    """Each pixel's features less their mean over the image, at length one."""
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    return F.normalize(centred, dim=1, eps=1e-3)
