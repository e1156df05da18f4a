"""Fine-tuning of the appearance pathway for semantic segmentation (Sec. 4.4): its features, a fresh classifier."""

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from learning.networks.amd import Amd

IGNORE = 255
"""Label of pixels that no loss and no score looks at, as in PASCAL VOC."""

RATE, MOMENTUM, WEIGHT_DECAY, POWER = 0.01, 0.9, 1e-4, 0.9
"""Stochastic gradient descent under the polynomial schedule usual for fully convolutional networks (*ours*: the
paper does not say)."""


class Semantic(nn.Module):
    """The appearance pathway of a trained AMD with a classifier of its own.

    Args:
        network: copied, not changed.
        classes: number of classes, background included.
    """

    def __init__(self, network: Amd, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise UsageError(f"{classes} classes: at least 2 are needed")
        self.base = copy.deepcopy(network)
        self.classify = nn.Conv2d(network.config.head, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes, H, W] of an image [B, 3, H, W] in [0, 1]."""
        logits = self.classify(self.base.appearance.features(self.base.normalised(image)))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def fine_tune(
    network: Amd,
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    steps: int,
    batch: int = 4,
    rate: float = RATE,
    seed: int = 0,
) -> tuple[Semantic, list[float]]:
    """Train a classifier and the pathway below it on labelled pictures.

    Args:
        images: uint8 [N, 3, h, w] RGB.
        labels: uint8 [N, h, w], `IGNORE` where nothing is known.

    Returns:
        The network in evaluation mode, and the loss of every step.

    Raises:
        UsageError: pictures and labels that do not belong together, or a class there is not.
    """
    if len(images) != len(labels) or images.shape[2:] != labels.shape[1:]:
        raise UsageError(f"{list(images.shape)} pictures and {list(labels.shape)} labels do not belong together")
    known = labels[labels != IGNORE]
    if len(known) and int(known.max()) >= classes:
        raise UsageError(f"label {int(known.max())}, but there are {classes} classes")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Semantic(network, classes).train()
    trained = [*model.base.appearance.parameters(), *model.classify.parameters()]
    optimiser = torch.optim.SGD(trained, rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps) ** POWER
        rows = rng.choice(len(images), min(batch, len(images)), replace=False)
        picture = torch.from_numpy(images[rows]).float() / 255
        target = torch.from_numpy(labels[rows].astype(np.int64))
        loss = F.cross_entropy(model(picture), target, ignore_index=IGNORE)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return model.eval(), losses


@torch.no_grad()
def mean_iou(model: Semantic, pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean over the classes that occur of intersection over union, pixels of all pictures together.

    Args:
        pictures: uint8 [3, h, w] RGB and uint8 [h, w] labels of each.
    """
    classes = model.classify.out_channels
    confusion = np.zeros((classes, classes), np.int64)
    for image, label in pictures:
        found = model(torch.from_numpy(image)[None].float() / 255)[0].argmax(dim=0).numpy()
        valid = label != IGNORE
        cells = label[valid].astype(np.int64) * classes + found[valid]
        confusion += np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if (union > 0).any() else 0.0
