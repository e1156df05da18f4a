"""Figures of a network on held-out synthetic samples."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from learning.batches import Batches
from learning.networks.compact import Proposals


class ProposalNetwork(Protocol):
    """A torch network or a model file behind the same call."""

    def eval(self) -> Any:
        """Switch to inference."""

    def __call__(self, image: torch.Tensor, motion: torch.Tensor) -> Proposals:
        """Outputs of the model contract for a batch."""


@dataclass(frozen=True)
class Figures:
    """Held-out figures, all in [0, 1].

    Attributes:
        binary_iou: mean IoU of the foreground at 0.5, over samples that have foreground and motion.
        best_iou: mean over instances of the IoU of the best of all proposals.
        ap50: average precision at IoU 0.5 over samples whose objects are all labelled.
    """

    binary_iou: float
    best_iou: float
    ap50: float

    @property
    def overall(self) -> float:
        """One number to compare two networks."""
        return (self.binary_iou + self.best_iou + self.ap50) / 3


def average_precision(scores: np.ndarray, hits: np.ndarray, truths: int) -> float:
    """Area under the interpolated precision-recall curve; scores [n], hits bool [n]."""
    if truths == 0 or len(scores) == 0:
        return 0.0
    hits = hits[np.argsort(-scores, kind="stable")]
    recall = np.cumsum(hits) / truths
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def _match(masks: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best IoU per truth [T], and which proposals are hits at 0.5 in order of score [N] bool."""
    a, b = masks.reshape(len(masks), -1).astype(np.float32), truth.reshape(len(truth), -1).astype(np.float32)
    both = a @ b.T
    iou = both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)
    hits, taken = np.zeros(len(masks), bool), np.zeros(len(truth), bool)
    for n in np.argsort(-scores):
        t = int(np.argmax(np.where(taken, -1, iou[n])))
        if iou[n, t] >= 0.5 and not taken[t]:
            hits[n], taken[t] = True, True
    return iou.max(axis=0), hits


@torch.no_grad()
def validate(network: ProposalNetwork, batches: Batches, device: torch.device) -> Figures:
    """Run the network over every held-out sample."""
    network.eval()
    binary, best, scores, hits, truths = [], [], [], [], 0
    for batch in batches.once():
        out = network(batch.image.to(device), batch.motion.to(device))
        foreground = 1 - out.background.float().cpu().numpy()
        masks, score = out.masks.float().cpu().numpy() > 0, out.scores.float().cpu().numpy()
        for i in range(len(masks)):
            target, weight = batch.binary[i].numpy(), batch.binary_weight[i].numpy() > 0.5
            if batch.motion[i].any() and (target > 0.5).sum() > 8:
                p, t = (foreground[i] > 0.5) & weight, (target > 0.5) & weight
                binary.append((p & t).sum() / (p | t).sum())
            truth = batch.masks[i][batch.valid[i] > 0].numpy() > 0.5
            if not len(truth):
                continue
            ious, hit = _match(masks[i], score[i], truth)
            best.extend(ious)
            # More instances than the batch keeps would make right proposals look wrong.
            if len(truth) < batch.masks.shape[1] and float(batch.heat_weight[i].min()) > 0.5:
                scores.append(score[i])
                hits.append(hit)
                truths += len(truth)
    empty = np.zeros(0)
    ap = average_precision(np.concatenate([empty, *scores]), np.concatenate([empty.astype(bool), *hits]), truths)
    return Figures(float(np.mean(binary or [0])), float(np.mean(best or [0])), ap)
