"""AMD (Liu et al., *The Emergence of Objectness*, 2021): what is seen and how it moves, bound by segment flow.

The appearance pathway cuts one image into c soft segments; the motion pathway compares two images; the mean of the
motion features over each segment gives one flow per segment. Trained by rebuilding each image from the other.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from learning.amd.losses import segment_flow, segment_means
from learning.networks.amd_backbones import BACKBONES, Appearance
from learning.networks.amd_motion import MotionPathway

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOTION_STRIDE = 4
_FLOW_UNIT_PX = 8.0
"""Input pixels per unit of the read-out g: its outputs are then near one."""

_SLOPE = 0.1


@dataclass(frozen=True)
class AmdConfig:
    """Size of the network.

    Attributes:
        segments: c.
        backbone: of the appearance pathway, "compact" or "resnet50" (the paper's).
        head: width of its head.
        pyramid: channels of the motion pyramid at strides 2, 4, 8.
        motion: channels of a motion decoder.
        radii: of the cost volumes at strides 8, 4, 2, in cells.
        readout: hidden units of g.

    Raises:
        UsageError: a backbone there is not, or fewer than two segments.
    """

    segments: int = 5
    backbone: str = "compact"
    head: int = 24
    pyramid: tuple[int, int, int] = (12, 16, 24)
    motion: int = 24
    radii: tuple[int, int, int] = (2, 1, 1)
    readout: int = 64

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise UsageError(f"--backbone {self.backbone} is unknown: choose one of {', '.join(BACKBONES)}")
        if not 2 <= self.segments <= 64:
            raise UsageError(f"--segments {self.segments}: must be 2 ... 64")


class Segmented(NamedTuple):
    """One direction of a pair.

    Attributes:
        masks: S of the target, [B, c, h, w] at the motion grid (stride 4).
        flows: F_m from target to source, [B, c, 2] in input pixels.
        dense: flow of every pixel that the motion pathway found, [B, 2, H/2, W/2] in input pixels.
    """

    masks: Tensor
    flows: Tensor
    dense: Tensor

    def flow(self, size: tuple[int, int], input_width: int) -> Tensor:
        """Segment flow [B, 2, *size] in pixels of `size`."""
        masks = self.masks
        if tuple(masks.shape[2:]) != size:
            masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        return segment_flow(self.flows, masks) * (size[1] / input_width)


class Amd(nn.Module):
    """Both pathways; see the module docstring."""

    def __init__(self, config: AmdConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or AmdConfig()
        self.appearance = Appearance(c.segments, c.backbone, c.head)
        self.motion = MotionPathway(c.pyramid, c.motion, c.radii)
        self.readout = nn.Sequential(
            nn.Linear(self.motion.channels, c.readout), nn.LeakyReLU(_SLOPE), nn.Linear(c.readout, 2)
        )
        self._begin_with_the_mean_shift()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    @torch.no_grad()
    def _begin_with_the_mean_shift(self) -> None:
        """Have g pass on the mean of the expected shifts at first (*ours*): l(v) - l(-v) = (1 + slope) v."""
        first, last = self.readout[0], self.readout[2]
        last.weight.zero_()
        last.bias.zero_()
        for axis in (0, 1):
            for sign in (1.0, -1.0):
                row = 2 * axis + (sign < 0)
                first.weight[row] = 0.0
                first.bias[row] = 0.0
                first.weight[row, axis - 2] = sign
                last.weight[axis, row] = sign * self.motion.unit_px / (1 + _SLOPE) / _FLOW_UNIT_PX

    def masks(self, image: Tensor) -> Tensor:
        """S = f_A(X): soft segments [B, c, H/s, W/s] that sum to one, of an image [B, 3, H, W] in [0, 1]."""
        return torch.softmax(self.appearance(self.normalised(image)).float(), dim=1)

    def segments(self, image: Tensor) -> Tensor:
        """`masks` at the grid of the motion pathway's read-out, [B, c, H/4, W/4]."""
        return self._on_motion_grid(self.masks(image))

    def normalised(self, image: Tensor) -> Tensor:
        """The image with the mean and deviation every network here is fed with."""
        return (image - self.mean) / self.std  # type: ignore[no-any-return, operator]

    def forward(self, first: Tensor, second: Tensor) -> tuple[Segmented, Segmented]:
        """Both directions: segments of `first` that move to `second`, and the other way round.

        Args:
            first, second: [B, 3, H, W] in [0, 1], H and W multiples of 32.
        """
        batch = len(first)
        both = torch.cat([first, second])
        masks = self.segments(both)
        features, dense = self._motion(both)
        pooled = segment_means(F.avg_pool2d(features, 2), masks)
        flows = self.readout(pooled).float() * _FLOW_UNIT_PX
        return (
            Segmented(masks[:batch], flows[:batch], dense[:batch]),
            Segmented(masks[batch:], flows[batch:], dense[batch:]),
        )

    def dense_flow(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """What the motion pathway finds on its own, both directions: [B, 2, H/2, W/2] in input pixels."""
        _, dense = self._motion(torch.cat([first, second]))
        return dense[: len(first)], dense[len(first) :]

    def _motion(self, both: Tensor) -> tuple[Tensor, Tensor]:
        half = len(both) // 2
        pyramid = self.motion.pyramid(self.normalised(both))
        swapped = [(torch.roll(x, half, 0), torch.roll(compared, half, 0)) for x, compared in pyramid]
        features = self.motion(pyramid, swapped).float()
        return features, features[:, -2:] * self.motion.unit_px

    def _on_motion_grid(self, masks: Tensor) -> Tensor:
        if self.appearance.stride == _MOTION_STRIDE:
            return masks
        scale = self.appearance.stride / _MOTION_STRIDE
        return F.interpolate(masks, scale_factor=scale, mode="bilinear", align_corners=False)
