"""Network of MuG: one backbone, a foreground map of a frame, and one read with the memory of its video.

The backbone phi gives features x at stride 4; rho reads a foreground map from x alone, upsilon from r = [x', x], where
x' is what the frame finds of itself in a memory of other frames (Eqs. 9-11). Plain 3x3 convolutions to stride 32 and
back stand for the dilated ResNet-50 of the paper, so that a processor trains it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4
"""Input pixels per cell of features and maps."""

SEEN = (96, 160)
"""Rows and columns at which whole frames are trained on and read."""

LEAST_SIZE_PX = 32
"""Sides of an input must be multiples of this."""


@dataclass(frozen=True)
class MugConfig:
    """Size of the network.

    Attributes:
        stem: channels at stride 2.
        widths: channels at strides 4, 8, 16, 32.
        decoder: channels at strides 16 and 8 on the way back.
        features: C, channels of x.
        memory_pool: cells of x that one cell of the memory averages, per axis.
        temperature: divides cosine similarities before a softmax.
        grid: rows and columns of the maps that the transformation between two frames is estimated on.
        estimator: channels of the two convolutions of that estimator.
    """

    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 64, 112, 160)
    decoder: tuple[int, int] = (96, 64)
    features: int = 64
    memory_pool: int = 4
    temperature: float = 0.07
    grid: tuple[int, int] = (12, 20)
    estimator: tuple[int, int] = (64, 32)


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Backbone(nn.Module):
    """phi: image [B, 3, H, W] (normalised, sides multiples of 32) to features x [B, C, H/4, W/4]."""

    def __init__(self, config: MugConfig) -> None:
        super().__init__()
        w4, w8, w16, w32 = config.widths
        d16, d8 = config.decoder
        self.down4 = nn.Sequential(_conv(3, config.stem, 2), _conv(config.stem, w4, 2), _Residual(w4))
        self.down8 = nn.Sequential(_conv(w4, w8, 2), _Residual(w8))
        self.down16 = nn.Sequential(_conv(w8, w16, 2), _Residual(w16), _Residual(w16))
        self.down32 = nn.Sequential(_conv(w16, w32, 2), _Residual(w32))
        self.up16 = _conv(w32 + w16, d16)
        self.up8 = _conv(d16 + w8, d8)
        # Convolutions at stride 4 cost most: narrow what comes up before it gets there.
        self.narrow = _conv(d8, w4, kernel=1)
        self.up4 = _conv(2 * w4, config.features)
        self.last = nn.Conv2d(config.features, config.features, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x4 = self.down4(image)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        y16 = self.up16(torch.cat([_double(self.down32(x16)), x16], dim=1))
        y8 = self.up8(torch.cat([_double(y16), x8], dim=1))
        y4 = self.up4(torch.cat([_double(self.narrow(y8)), x4], dim=1))
        return self.last(y4)


class TransformEstimator(nn.Module):
    """kappa: affinity of two frames to the affine transformation between them; begins at the identity."""

    def __init__(self, config: MugConfig) -> None:
        super().__init__()
        rows, columns = config.grid
        first, second = config.estimator
        self.grid = config.grid
        self.body = nn.Sequential(
            nn.Conv2d(rows * columns, first, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.linear = nn.Linear(second * ((rows + 1) // 2) * ((columns + 1) // 2), 6)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, affinity: Tensor) -> Tensor:
        """tau_ij [B, 2, 3] in coordinates -1 … 1 as (x, y, 1), from A_ij [B, cells of i, cells of j] (Eq. 7)."""
        maps = affinity.reshape(len(affinity), -1, *self.grid)
        change = self.linear(self.body(maps)).reshape(-1, 2, 3)
        return change + torch.eye(2, 3, dtype=change.dtype, device=change.device)


class Mug(nn.Module):
    """Everything that is trained; see the module docstring."""

    def __init__(self, config: MugConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MugConfig()
        self.backbone = Backbone(c)
        self.rho = nn.Conv2d(c.features, 1, 1)
        self.upsilon = nn.Conv2d(2 * c.features, 1, 1)
        self.kappa = TransformEstimator(c)
        # Responses of tracking: sigmoid(gain * cosine + shift), rare to begin with.
        self.gain = nn.Parameter(torch.tensor(10.0))
        self.shift = nn.Parameter(torch.tensor(-8.0))
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def memorise(self, x: Tensor) -> Tensor:
        """What the memory keeps of features x [B, C, h, w]: [B, C, h/pool, w/pool]."""
        return F.avg_pool2d(x, self.config.memory_pool)

    def recall(self, x: Tensor, memory: Tensor) -> Tensor:
        """r = [x', x] [B, 2C, h, w] of x [B, C, h, w] with a memory [B, M, C, h', w'] of M frames (Eqs. 9-11).

        A = softmax over all cells of the memory of the cosine of features over the temperature.
        """
        batch, channels, h, w = x.shape
        cells = memory.transpose(1, 2).reshape(batch, channels, -1)
        query = F.normalize(x, dim=1).flatten(2).transpose(1, 2)
        affinity = torch.softmax(query @ F.normalize(cells, dim=1) / self.config.temperature, dim=2)
        found = (affinity @ cells.transpose(1, 2)).transpose(1, 2).reshape(batch, channels, h, w)
        return torch.cat([found, x], dim=1)

    def frame_logits(self, x: Tensor) -> Tensor:
        """rho: foreground logits [B, 1, h, w] of a frame on its own."""
        return self.rho(x)

    def video_logits(self, r: Tensor) -> Tensor:
        """upsilon: foreground logits [B, 1, h, w] of a frame seen with its video."""
        return self.upsilon(r)

    def forward(self, image: Tensor) -> Tensor:
        """Foreground logits [B, 1, H/4, W/4] of an image [B, 3, H, W] on its own."""
        return self.frame_logits(self.backbone(image))


@contextmanager
def unrecorded_statistics(network: nn.Module) -> Iterator[None]:
    """Within it normalisations use the batch but do not move their running means: crops would distort them."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
