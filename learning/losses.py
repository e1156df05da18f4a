"""Losses of the proposal network."""

import torch
from torch import Tensor
from torch.nn import functional as F

from learning.batches import Batch
from learning.networks.compact import Compact, Maps

WEIGHTS = {"binary": 1.0, "heat": 0.5, "dice": 1.5, "mask": 1.0, "quality": 0.2, "embedding": 0.4}
"""Centre, dice and mask terms as measured best for seeded kernels; the embedding must tell objects apart as well."""

_POINTS = 80


def focal_centres(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss, per centre; logits, target, weight [B, 1, h, w]."""
    logits = logits.float()
    p = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
    centre = (target >= 0.999).float()
    hit = -torch.log(p) * (1 - p) ** 2 * centre
    miss = -torch.log(1 - p) * p**2 * (1 - target) ** 4 * (1 - centre)
    return ((hit + miss) * weight).sum() / centre.sum().clamp(min=1)


def binary_foreground(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy plus soft IoU over the pixels that are not ignored; [B, 1, h, w]."""
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum") / weight.sum().clamp(min=1)
    p, t = torch.sigmoid(logits) * weight, target * weight
    both = (p * t).sum(dim=(1, 2, 3))
    union = (p + t - p * t).sum(dim=(1, 2, 3))
    filled = (t.sum(dim=(1, 2, 3)) > 4).float()
    iou = 1 - (both + 1) / (union + 1)
    return entropy + 0.5 * (iou * filled).sum() / filled.sum().clamp(min=1)


def instance_masks(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dice, balanced cross-entropy and the IoU reached; logits, target [M, h, w], valid [M].

    Object and rest of the image weigh the same, however small the object is.
    """
    p = torch.sigmoid(logits)
    both = (p * target).sum(dim=(1, 2))
    dice = 1 - (2 * both + 1) / ((p * p).sum(dim=(1, 2)) + (target * target).sum(dim=(1, 2)) + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (entropy * target).sum(dim=(1, 2)) / target.sum(dim=(1, 2)).clamp(min=1)
    outside = (entropy * (1 - target)).sum(dim=(1, 2)) / (1 - target).sum(dim=(1, 2)).clamp(min=1)
    count = valid.sum().clamp(min=1)
    with torch.no_grad():
        hard, truth = p > 0.5, target > 0.5
        iou = (hard & truth).sum(dim=(1, 2)) / (hard | truth).sum(dim=(1, 2)).clamp(min=1)
    return (dice * valid).sum() / count, ((0.5 * inside + 0.5 * outside) * valid).sum() / count, iou


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """R = 2 / (1 + exp |a - b|^2) of embeddings on the last axis, in (0, 1] (Eq. 1 of Seeds)."""
    return 2 * torch.sigmoid(-((a - b) ** 2).sum(dim=-1))


def embedding_pairs(embedding: Tensor, ids: Tensor) -> Tensor:
    """Logistic loss on R of random pixel pairs: 1 within an instance, 0 across (Eq. 2 of Seeds).

    embedding [B, E, h, w]; ids [B, h, w], -1 = ignored. Half the points are drawn from objects, so that a
    small object still meets itself. The kinds of pairs are averaged apart: pairs of two objects are rare,
    and in one average they would be given up for telling objects from background. Pairs inside the
    background count less, it may hide unlabelled objects.
    """
    flat = ids.flatten(1)
    weight = (flat >= 0).float() * 1e-3 + 1e-9
    for part in (flat > 0, flat == 0):
        weight += part.float() * (0.5 / part.sum(dim=1, keepdim=True).clamp(min=1))
    points = torch.multinomial(weight, _POINTS)
    label = flat.gather(1, points)
    chosen = embedding.float().flatten(2).gather(2, points[:, None].expand(-1, embedding.shape[1], -1)).transpose(1, 2)
    r = similarity(chosen[:, :, None], chosen[:, None, :]).clamp(1e-4, 1 - 1e-4)
    first, second = label[:, :, None], label[:, None, :]
    same = first == second
    objects = (first > 0) & (second > 0)
    known = (first >= 0) & (second >= 0)
    loss = -torch.where(same, torch.log(r), torch.log(1 - r))
    kinds = [
        (1.0, objects & same),
        (1.0, objects & ~same),
        (1.0, known & ~objects & ~same),
        (0.3, known & ~objects & same),
    ]
    return sum(
        (share * (loss * pairs).sum() / pairs.sum().clamp(min=1) for share, pairs in kinds),
        torch.zeros((), device=loss.device),
    )


def proposal_losses(network: Compact, maps: Maps, batch: Batch) -> dict[str, Tensor]:
    """Every term, unweighted."""
    size, instances, cells = batch.cells.shape
    logits = network.read_masks(maps, batch.cells.reshape(size, -1))
    target = batch.masks[:, :, None].expand(-1, -1, cells, -1, -1).reshape(size * instances * cells, *logits.shape[2:])
    valid = batch.valid[:, :, None].expand(-1, -1, cells).reshape(-1)
    dice, mask, iou = instance_masks(logits.flatten(0, 1), target, valid)
    quality = maps.kernels[:, -1].float().flatten(1).gather(1, batch.cells.reshape(size, -1)).reshape(-1)
    quality_loss = F.binary_cross_entropy_with_logits(quality, iou.float(), reduction="none")
    return {
        "binary": binary_foreground(maps.foreground, batch.binary, batch.binary_weight),
        "heat": focal_centres(maps.heat, batch.heat, batch.heat_weight),
        "dice": dice,
        "mask": mask,
        "quality": (quality_loss * valid).sum() / valid.sum().clamp(min=1),
        "embedding": embedding_pairs(maps.embedding, batch.ids),
    }


def total(losses: dict[str, Tensor]) -> Tensor:
    """Weighted sum of the terms."""
    return torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
