"""Motion pathway of AMD: features of how one image moves into another, coarse to fine over cost volumes (PWC-Net)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.amd.warp import warp

LEVEL_STRIDES = (8, 4, 2)
"""At the size AMD sees, things move by a few pixels between the frames of a pair: stride 4 is too coarse for that."""

_SHARPNESS = 20.0
"""Of the soft arg-max over a cost volume of cosines."""

_CALM = 0.1
"""Cosine a shift must win by per cell of its length: where nothing has texture, nothing moves."""

_PATCH = 5
"""Side of the patches of the picture that are compared beside learned features."""


def cost_volume(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Sum over channels of `first` at p times `second` at p + d for every d within `radius`, the border repeated.

    Args:
        first, second: [B, C, h, w].

    Returns:
        [B, (2 radius + 1)^2, h, w], rows of d_y, then d_x.
    """
    height, width = first.shape[2:]
    padded = F.pad(second, (radius,) * 4, mode="replicate")
    shifts = range(2 * radius + 1)
    layers = [
        (first * padded[:, :, y : y + height, x : x + width]).sum(dim=1, keepdim=True) for y in shifts for x in shifts
    ]
    return torch.cat(layers, dim=1)


def expected_shift(costs: Tensor, radius: int, calm: float = 0.0) -> Tensor:
    """Mean displacement (dx, dy) under the softmax of a cost volume less `calm` per cell of shift, [B, 2, h, w]."""
    steps = torch.arange(-radius, radius + 1, dtype=costs.dtype, device=costs.device)
    count = len(steps)
    table = torch.stack([steps.repeat(count), steps.repeat_interleave(count)])
    likeness = costs - calm * table.norm(dim=0)[:, None, None]
    return torch.einsum("bdhw,cd->bchw", torch.softmax(_SHARPNESS * likeness, dim=1), table)


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class MotionPathway(nn.Module):
    """f_M of Eq. 2.

    At each level the second image's features are warped by the motion found so far and compared within a radius.
    *Ours*: patches of the picture are compared beside learned features, and the expected shift of each cost volume is
    part of the motion found, so that there is a flow before anything is learned.

    Args:
        widths: channels of the pyramid at strides 2, 4, 8.
        features: channels the decoder of each level leaves.
        radii: of the cost volumes at strides 8, 4, 2.

    Attributes:
        channels: d_v; the last two are the flow found, (dx, dy) in units of `unit_px` input pixels.
    """

    unit_px = 16.0

    def __init__(self, widths: tuple[int, int, int], features: int, radii: tuple[int, int, int]) -> None:
        super().__init__()
        w2, w4, w8 = widths
        self.radii = radii
        self.pyramid2 = nn.Sequential(_layer(3, w2, 2), _layer(w2, w2))
        self.pyramid4 = nn.Sequential(_layer(w2, w4, 2), _layer(w4, w4))
        self.pyramid8 = nn.Sequential(_layer(w4, w8, 2), _layer(w8, w8))
        # How much learned features count beside patches.
        self.trust = nn.Parameter(torch.full((len(widths),), 0.3))
        self.decoders, self.shifts = nn.ModuleList(), nn.ModuleList()
        came = 0
        for width, radius in zip((w8, w4, w2), radii, strict=True):
            inputs = (2 * radius + 1) ** 2 + width + 2 + came
            self.decoders.append(nn.Sequential(_layer(inputs, features), _layer(features, features)))
            shift = nn.Conv2d(features, 2, 3, 1, 1)
            nn.init.zeros_(shift.weight)
            nn.init.zeros_(shift.bias)  # type: ignore[arg-type]
            self.shifts.append(shift)
            came = features
        self.channels = features + 2

    def pyramid(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features, and patches of the picture, at strides 8, 4, 2 of a normalised image."""
        x2 = self.pyramid2(image)
        x4 = self.pyramid4(x2)
        grey = image.mean(dim=1, keepdim=True)
        return [
            (features, _patches(F.avg_pool2d(grey, stride)).to(features.dtype))
            for features, stride in zip((self.pyramid8(x4), x4, x2), LEVEL_STRIDES, strict=True)
        ]

    def forward(self, first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> Tensor:
        """V of `first` towards `second`, given as pyramids: [B, d_v, H/2, W/2]."""
        motion: Tensor | None = None
        state: Tensor | None = None
        for (features, patches), (others, other_patches), decoder, shift, radius, trust in zip(
            first, second, self.decoders, self.shifts, self.radii, self.trust, strict=True
        ):
            one, other = _unit(features), _unit(others)
            if motion is None or state is None:
                motion, parts = one.new_zeros(len(one), 2, *one.shape[2:]), []
            else:
                motion = 2 * F.interpolate(motion, size=one.shape[2:], mode="bilinear", align_corners=False)
                parts = [F.interpolate(state, size=one.shape[2:], mode="bilinear", align_corners=False)]
                # Each level learns by itself from where the one before has brought it.
                so_far = motion.detach().float()
                other, other_patches = (warp(x.float(), so_far).to(x.dtype) for x in (other, other_patches))
            with torch.no_grad():
                same = cost_volume(patches, other_patches, radius)
            costs = (same + trust**2 * cost_volume(one, other, radius)) / (1 + trust**2)
            motion = motion + expected_shift(costs, radius, _CALM)
            state = decoder(torch.cat([costs, features, motion / 8, *parts], dim=1))
            motion = motion + shift(state)
        assert state is not None
        assert motion is not None
        return torch.cat([state, motion * (LEVEL_STRIDES[-1] / self.unit_px)], dim=1)


def _unit(features: Tensor) -> Tensor:
    """Each pixel's features less their mean over the image, at length one."""
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    return F.normalize(centred, dim=1, eps=1e-3)


def _patches(image: Tensor) -> Tensor:
    """The patch about every pixel of [B, 1, h, w] less its mean, [B, 25, h, w]; of length one where it has texture."""
    height, width = image.shape[2:]
    bordered = F.pad(image, (_PATCH // 2,) * 4, mode="replicate")
    patches = F.unfold(bordered, _PATCH).reshape(len(image), _PATCH * _PATCH, height, width)
    # Normalised colours: a twentieth of their deviation is noise.
    return F.normalize(patches - patches.mean(dim=1, keepdim=True), dim=1, eps=0.05)
