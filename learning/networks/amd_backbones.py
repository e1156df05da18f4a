"""Appearance pathways of AMD: a fully convolutional segmentation of one image into c soft segments."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution, normalisation, rectifier; the size shrinks by the stride alone."""
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class CompactBackbone(nn.Module):
    """Encoder to stride 32 and back to stride 4, plain 3x3 convolutions: trains on two cores.

    Attributes:
        channels: of the features; stride: of their grid.
    """

    stride = 4

    def __init__(self, widths: tuple[int, int, int, int, int] = (16, 24, 48, 80, 112)) -> None:
        super().__init__()
        w2, w4, w8, w16, w32 = widths
        self.channels = w4
        self.down4 = nn.Sequential(conv(3, w2, 2), conv(w2, w4, 2))
        self.down8 = nn.Sequential(conv(w4, w8, 2), _Block(w8))
        self.down16 = nn.Sequential(conv(w8, w16, 2), _Block(w16))
        self.down32 = nn.Sequential(conv(w16, w32, 2), _Block(w32))
        # What belongs to an object depends on the whole picture.
        self.context = conv(w32, w32, kernel=1)
        self.up16 = conv(w32 + w16, w16)
        self.up8 = conv(w16 + w8, w8)
        self.up4 = conv(w8 + w4, w4)

    def forward(self, image: Tensor) -> Tensor:
        """Features [B, channels, H/4, W/4] of a normalised image [B, 3, H, W]; H and W multiples of 32."""
        x4 = self.down4(image)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x32 = self.down32(x16)
        x32 = x32 + self.context(x32.mean(dim=(2, 3), keepdim=True))
        y16 = self.up16(torch.cat([_double(x32), x16], dim=1))
        y8 = self.up8(torch.cat([_double(y16), x8], dim=1))
        return self.up4(torch.cat([_double(y8), x4], dim=1))  # type: ignore[no-any-return]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut (He et al. 2016), the stride on the 3x3."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.narrow = conv(inputs, width, kernel=1)
        self.spatial = conv(width, width, stride, dilation=dilation)
        self.widen = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.widen(self.spatial(self.narrow(x))) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 without its classifier, the last two stages dilated so that the features stay at stride 8.

    Attributes:
        channels: of the features; stride: of their grid.
    """

    stride = 8
    channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64, 2, kernel=7), nn.MaxPool2d(3, 2, 1))
        self.stage1 = _stage(64, 64, 3)
        self.stage2 = _stage(256, 128, 4, stride=2)
        self.stage3 = _stage(512, 256, 6, dilation=2)
        self.stage4 = _stage(1024, 512, 3, dilation=4)

    def forward(self, image: Tensor) -> Tensor:
        """Features [B, 2048, H/8, W/8] of a normalised image [B, 3, H, W]; H and W multiples of 8."""
        return self.stage4(self.stage3(self.stage2(self.stage1(self.stem(image)))))  # type: ignore[no-any-return]


def _stage(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = _Bottleneck(inputs, width, stride, dilation)
    return nn.Sequential(first, *(_Bottleneck(4 * width, width, 1, dilation) for _ in range(blocks - 1)))


BACKBONES = {"compact": CompactBackbone, "resnet50": ResNet50}


class Appearance(nn.Module):
    """f_A of Eq. 1: a backbone and a head of two convolutional blocks.

    Args:
        segments: c.
        backbone: one of `BACKBONES`.
        head: width of the head.
    """

    def __init__(self, segments: int, backbone: str, head: int) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone]()
        self.stride: int = self.backbone.stride
        self.head = nn.Sequential(conv(self.backbone.channels, head), conv(head, head))
        self.classify = nn.Conv2d(head, segments, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # Segments that differ from the start: as near-equal masks they would move alike and never part.
        nn.init.normal_(self.classify.weight, std=(4.0 / head) ** 0.5)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def features(self, image: Tensor) -> Tensor:
        """What the classifier sees: [B, head, H/stride, W/stride]."""
        return self.head(self.backbone(image))  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the segments, [B, c, H/stride, W/stride]."""
        return self.classify(self.features(image))  # type: ignore[no-any-return]
