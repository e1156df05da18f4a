"""A small prototype-style network in YOLO-seg's layout, to train or to try the adapter with.

Bolya et al., YOLACT (2019): each cell of a few grids proposes a box, a score and coefficients; masks are weighted
sums of shared prototypes. Boxes by distances to the cell's centre, as in Tian et al., FCOS (2019).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import ModelError, UsageError

STRIDES = (8, 16, 32)
PROTOTYPES = 16
_WIDTHS = (16, 32, 48, 64, 96)


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class PrototypeNetwork(nn.Module):
    """Picture in, raw detections of every cell and the prototypes out; nothing is left out.

    Args:
        size: (h, w) of the picture, multiples of 32.
        classes: scores per detection; 1 for objectness alone.
    """

    def __init__(self, size: tuple[int, int], classes: int = 1) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(a, b, 2), _layer(b, b)) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False)
        )
        self.heads = nn.ModuleList(nn.Conv2d(n, 4 + classes + PROTOTYPES, 1) for n in _WIDTHS[2:])
        self.prototypes = nn.Conv2d(_WIDTHS[1], PROTOTYPES, 3, 1, 1)
        self.classes = classes
        centres, strides = [], []
        for stride in STRIDES:
            y, x = torch.meshgrid(torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij")
            centres.append((torch.stack([x.flatten(), y.flatten()]) + 0.5) * stride)
            strides.append(torch.full((y.numel(),), float(stride)))
        self.register_buffer("centres", torch.cat(centres, dim=1), persistent=False)
        self.register_buffer("strides", torch.cat(strides), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions [1, 4 + classes + k, A] (box centre and size in pixels, scores, coefficients), prototypes.

        Args:
            image: float32 [1, 3, h, w] RGB in 0 ... 1.

        Returns:
            The predictions, and the prototypes [1, k, h / 4, w / 4].
        """
        levels = []
        for stage in self.stages:
            image = stage(image)
            levels.append(image)
        rows = torch.cat([head(x).flatten(2) for head, x in zip(self.heads, levels[2:], strict=True)], dim=2)
        reach = rows[:, :4].clamp(max=4).exp() * self.strides
        start, end = self.centres - reach[:, :2], self.centres + reach[:, 2:]
        scores = rows[:, 4 : 4 + self.classes].sigmoid()
        coefficients = rows[:, 4 + self.classes :].tanh()
        predictions = torch.cat([(start + end) / 2, end - start, scores, coefficients], dim=1)
        return predictions, self.prototypes(levels[1])


def build(weights: Path | None, size: tuple[int, int], seed: int = 0) -> PrototypeNetwork:
    """The network, of a file of weights or of random ones.

    Args:
        weights: its state dictionary; how many classes it has follows from it.
        size: (h, w) of the picture, multiples of 32.

    Raises:
        UsageError: a size that does not fit.
        ModelError: the weights do not fit.
    """
    if any(n % STRIDES[-1] or n < 2 * STRIDES[-1] for n in size):
        raise UsageError(f"--size {size[0]}x{size[1]}: multiples of 32 are needed, at least 64")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if weights is None:
            return PrototypeNetwork(size).eval()
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            classes = len(state["heads.0.weight"]) - 4 - PROTOTYPES if isinstance(state, Mapping) else 1
            network = PrototypeNetwork(size, classes)
            network.load_state_dict(state)
        except Exception as error:  # zip, pickle, file and shape errors alike
            raise ModelError(f"weights {weights}: do not fit ({' '.join(str(error).split())[:140]})") from None
    return network.eval()
