"""Without old data the base itself says what must not be forgotten: where labels are silent, it teaches."""

import torch
from torch import Tensor
from torch.nn import functional as F

from learning.batches import Batch
from learning.networks.compact import Maps

WEIGHTS = {"keep foreground": 1.0, "keep centres": 0.5, "keep masks": 1.0, "keep embedding": 0.4}
"""As the losses of the labels weigh the same outputs."""


def _divergence(logits: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Sum of the weighted Kullback-Leibler divergence of two Bernoulli maps given as logits."""
    logits, target = logits.float(), torch.sigmoid(teacher.float())
    cross = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return cross - F.binary_cross_entropy_with_logits(teacher.float(), target, weight, reduction="sum")


def _difference(values: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over cells of the smooth L1 distance, [B, C, h, w] with weight [B, 1, h, w]."""
    distance = F.smooth_l1_loss(values.float(), teacher.float(), reduction="none").mean(dim=1, keepdim=True)
    return (distance * weight).sum() / weight.sum().clamp(min=1)


def distillation(maps: Maps, teacher: Maps, batch: Batch) -> dict[str, Tensor]:
    """Weighted terms that hold every head to the base wherever no label claims anything."""
    silent = (batch.binary_weight < 0.5).float()
    # Mask features, votes and embeddings are read by masks: free inside what labels show as one object.
    outside = (batch.masks.amax(dim=1, keepdim=True) < 0.5).float()
    silent_centres = (batch.heat_weight < 0.5).float()
    likely = torch.sigmoid(teacher.heat.float()) * silent_centres
    terms = {
        "keep foreground": _divergence(maps.foreground, teacher.foreground, silent) / silent.sum().clamp(min=1),
        "keep centres": _divergence(maps.heat, teacher.heat, silent_centres) / likely.sum().clamp(min=1),
        "keep masks": _difference(maps.features, teacher.features, outside)
        + _difference(maps.votes, teacher.votes, outside)
        + _difference(maps.kernels, teacher.kernels, likely),
        "keep embedding": _difference(maps.embedding, teacher.embedding, outside),
    }
    return {name: WEIGHTS[name] * value for name, value in terms.items()}
