"""The shipped network: one pass from image and motion to instance proposals, background and embedding.

Plain 3x3 convolutions from stride 2 to stride 32 and back to stride 4: they quantise to INT8 without loss
and run and train faster on a CPU than depthwise ones. Instances are seeded dynamic convolutions: a centre on
a 1/8 grid carries the weights that read its mask out of shared mask features at 1/4, so the number of outputs
is fixed and nothing has to be matched or suppressed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNIT_PX = 32.0
"""Input pixels per unit of the coordinates in the masks' distance term; keeps them near one."""

KERNEL_STRIDE = 8
MASK_STRIDE = 4


@dataclass(frozen=True)
class CompactConfig:
    """Size of the network.

    Attributes:
        stem: channels of the image at stride 2.
        motion: channels of the motion at stride 4.
        widths: channels at strides 4, 8, 16, 32.
        depths: extra residual blocks at strides 8, 16, 32.
        decoder: channels at strides 16, 8, 4 on the way back.
        features: mask features read by every kernel.
        embedding: length of the pixel embedding.
        proposals: number of masks.
    """

    stem: int = 16
    motion: int = 24
    widths: tuple[int, int, int, int] = (32, 64, 112, 160)
    depths: tuple[int, int, int] = (1, 2, 1)
    decoder: tuple[int, int, int] = (96, 64, 32)
    features: int = 16
    embedding: int = 16
    proposals: int = 32


class Maps(NamedTuple):
    """Dense outputs of the network before instances are read out.

    Attributes:
        heat: [B, 1, H/8, W/8] logits of object centres.
        kernels: [B, K, H/8, W/8] mask weights, bias, log bandwidth, centre offset (2) and quality logit.
        features: [B, 16, H/4, W/4] mask features.
        votes: [B, 2, H/4, W/4] offset of each pixel to the centre of its object, in units of UNIT_PX.
        foreground: [B, 1, H/4, W/4] logits.
        embedding: [B, E, H/4, W/4].
    """

    heat: Tensor
    kernels: Tensor
    features: Tensor
    votes: Tensor
    foreground: Tensor
    embedding: Tensor


class Proposals(NamedTuple):
    """Outputs of the model contract: masks [B, N, h, w] logits, scores [B, N], background [B, 1, h, w] and
    embedding [B, E, h, w], at a quarter of the input size."""

    masks: Tensor
    scores: Tensor
    background: Tensor
    embedding: Tensor


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def coordinates(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """Centres of the cells of a grid in units of UNIT_PX, [2, height, width] as (x, y)."""
    y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) * (stride / UNIT_PX)
    x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) * (stride / UNIT_PX)
    return torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)])


class Compact(nn.Module):
    """Proposal network; see the module docstring."""

    def __init__(self, config: CompactConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or CompactConfig()
        w4, w8, w16, w32 = c.widths
        d16, d8, d4 = c.decoder
        self.image_stem = nn.Sequential(_conv(3, c.stem, 2), _conv(c.stem, w4, 2))
        # Motion arrives at half the size of the image and joins it at stride 4.
        self.motion_stem = _conv(5, c.motion, 2)
        self.join4 = _conv(w4 + c.motion, w4)
        self.down8 = nn.Sequential(_conv(w4, w8, 2), *(_Block(w8) for _ in range(c.depths[0])))
        self.down16 = nn.Sequential(_conv(w8, w16, 2), *(_Block(w16) for _ in range(c.depths[1])))
        self.down32 = nn.Sequential(_conv(w16, w32, 2), *(_Block(w32) for _ in range(c.depths[2])))
        self.context = _conv(w32, w32, kernel=1)
        self.up16 = _conv(w32 + w16, d16)
        self.up8 = _conv(d16 + w8, d8)
        # Convolutions at stride 4 cost most: narrow what comes up before it gets there.
        self.narrow8 = _conv(d8, d4, kernel=1)
        self.up4 = _conv(d4 + w4, d4)
        self.refine4 = _conv(d4, d4)
        self.centre = _conv(d8, d8)
        self.heat = nn.Conv2d(d8, 1, 1)
        self.kernels = nn.Conv2d(d8, c.features + 5, 1)
        self.features = nn.Conv2d(d4, c.features, 1)
        self.votes = nn.Conv2d(d4, 2, 1)
        self.foreground = nn.Conv2d(d4, 1, 1)
        self.embedding = nn.Conv2d(d4, c.embedding, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # Centres are rare: start at one cell in a hundred, or the focal loss begins with a spike.
        nn.init.constant_(self.heat.bias, -4.6)  # type: ignore[arg-type]
        for head in (self.kernels, self.votes, self.embedding):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def maps(self, image: Tensor, motion: Tensor) -> Maps:
        """Dense outputs for image [B, 3, H, W] (normalised) and motion [B, 5, H/2, W/2], H and W multiples of 32."""
        x4 = self.join4(torch.cat([self.image_stem(image), self.motion_stem(motion)], dim=1))
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x32 = self.down32(x16)
        # The mean over the whole image lets a cell know what the camera does and how busy the scene is.
        x32 = x32 + self.context(x32.mean(dim=(2, 3), keepdim=True))
        y16 = self.up16(torch.cat([_double(x32), x16], dim=1))
        y8 = self.up8(torch.cat([_double(y16), x8], dim=1))
        y4 = self.refine4(self.up4(torch.cat([_double(self.narrow8(y8)), x4], dim=1)))
        z8 = self.centre(y8)
        heat, kernels = self.heat(z8), self.kernels(z8)
        return Maps(heat, kernels, self.features(y4), self.votes(y4), self.foreground(y4), self.embedding(y4))

    def read_masks(self, maps: Maps, cells: Tensor) -> Tensor:
        """Mask logits [B, N, H/4, W/4] float32 of the kernels at flat 1/8 cell indices [B, N].

        logit(x) = k . f(x) + b - e^g |x + o(x) - c|^2 , expanded so that all masks are one matrix product.
        """
        count = self.config.features
        batch, _, h8, w8 = maps.kernels.shape
        h4, w4 = maps.features.shape[2:]
        kernels = maps.kernels.float().flatten(2)
        chosen = kernels.gather(2, cells[:, None].expand(-1, kernels.shape[1], -1)).transpose(1, 2)
        grid = coordinates(h8, w8, KERNEL_STRIDE, maps.kernels).flatten(1).t()
        centre = grid[cells.flatten()].reshape(batch, -1, 2) + chosen[..., count + 2 : count + 4]
        weight, bias = chosen[..., :count], chosen[..., count : count + 1]
        bandwidth = chosen[..., count + 1 : count + 2].clamp(-6.0, 6.0).exp()
        place = maps.votes.float() + coordinates(h4, w4, MASK_STRIDE, maps.votes)
        square = (place * place).sum(dim=1, keepdim=True)
        pixels = torch.cat([maps.features.float(), place, square, torch.ones_like(square)], dim=1).flatten(2)
        constant = bias - bandwidth * (centre * centre).sum(dim=2, keepdim=True)
        rows = torch.cat([weight, 2 * bandwidth * centre, -bandwidth, constant], dim=2)
        return torch.bmm(rows, pixels).reshape(batch, -1, h4, w4)

    def forward(self, image: Tensor, motion: Tensor) -> Proposals:
        """Fixed number of proposals; score = sqrt(heat x quality) x mean probability inside the mask."""
        maps = self.maps(image, motion)
        heat = torch.sigmoid(maps.heat.float())
        peak = F.max_pool2d(heat, 3, 1, 1)
        heat = (heat * (heat >= peak).float()).flatten(1)
        strength, cells = heat.topk(self.config.proposals, dim=1)
        masks = self.read_masks(maps, cells)
        probability = torch.sigmoid(masks)
        inside = (probability > 0.5).float()
        mean = (probability * inside).sum(dim=(2, 3)) / (inside.sum(dim=(2, 3)) + 1e-3)
        quality = torch.sigmoid(maps.kernels[:, -1].float()).flatten(1).gather(1, cells)
        # The small term keeps the gradient of the root finite.
        scores = torch.sqrt(strength * quality + 1e-8) * mean
        background = 1 - torch.sigmoid(maps.foreground.float())
        return Proposals(masks, scores, background, maps.embedding.float())


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
