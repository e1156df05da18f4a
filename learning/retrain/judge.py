"""How good a network is on frames that never taught it, frame by frame: two networks can be compared in pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from learning.average_precision import Answer, AveragePrecision
from learning.batches import Batches, targets
from learning.synthesis.sample import LABEL_STRIDE, SIZE, Kind, Origin
from learning.synthesis.shards import Shards
from learning.validate import ProposalNetwork, average_precision

THRESHOLDS = np.arange(0.5, 0.96, 0.05)
"""IoUs of COCO's AP."""

_MIN_AREA = 8
"""Cells of the working grid: smaller ones are not trained either."""

_MIN_SCORE = 0.01
_COMPLETE = (Origin.COMPOSITE, Origin.PILE, Origin.STORE)
"""Origins whose unlabelled pixels hold no object, or are marked as ignored: elsewhere a right mask may look wrong."""

_PASS = 8


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Figures of one frame in [0, 1]; None where the frame has nothing to say about it.

    Attributes:
        foreground: IoU of the foreground at 0.5, ignored pixels left out.
        best: mean over the labelled objects of the IoU of the best proposal.
        precision: mean over THRESHOLDS of the average precision of the frame's proposals.
    """

    foreground: float | None
    best: float | None
    precision: float | None

    @property
    def overall(self) -> float | None:
        """Mean of what is known."""
        known = [value for value in (self.foreground, self.best, self.precision) if value is not None]
        return float(np.mean(known)) if known else None


@dataclass
class Slice:
    """Scores of one network on one held-out slice.

    Attributes:
        frames: in the order of the shards.
        figures: "AP", "AP50" and "AP75" of COCO, "foreground IoU", "best-mask IoU" over the slice.
        recall, precision: the curve at IoU 0.5, each point one proposal.
    """

    frames: list[FrameScore] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    recall: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)


def match(masks: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proposals against truth, greedily by score as COCO does.

    Args:
        masks: bool [N, h, w]; scores: float [N]; truth: bool [T, h, w], T above 0.

    Returns:
        best IoU of every truth, float [T], and hits bool [len(THRESHOLDS), N].
    """
    a, b = masks.reshape(len(masks), -1).astype(np.float32), truth.reshape(len(truth), -1).astype(np.float32)
    both = a @ b.T
    iou = both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)
    hits = np.zeros((len(THRESHOLDS), len(masks)), bool)
    for row, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(truth), bool)
        for n in np.argsort(-scores, kind="stable"):
            open_iou = np.where(taken, -1, iou[n])
            t = int(np.argmax(open_iou))
            if open_iou[t] >= threshold:
                hits[row, n], taken[t] = True, True
    return (iou.max(axis=0) if len(masks) else np.zeros(len(truth), np.float32)), hits


def _instances(ids: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Labelled objects of ids uint8 [h, w], bool [T, h, w]."""
    masks = [ids == v for v in np.unique(ids) if kinds[v] in (Kind.MOVING, Kind.STATIC)]
    masks = [mask for mask in masks if mask.sum() >= _MIN_AREA]
    return np.array(masks) if masks else np.empty((0, *ids.shape), bool)


def _foreground_iou(probability: np.ndarray, fields: dict[str, np.ndarray]) -> float | None:
    target, weight = fields["binary"][0] > 0.5, fields["binary_weight"][0] > 0.5
    if (target & weight).sum() <= _MIN_AREA:
        return None
    found = (probability > 0.5) & weight
    return float((found & target).sum() / (found | (target & weight)).sum())


@torch.no_grad()
def judge(
    network: ProposalNetwork,
    shards: Shards,
    limit: int,
    device: torch.device,
    step: Callable[[int, int], None] = lambda done, total: None,
    still: bool = False,
) -> Slice:
    """Run a network over at most `limit` samples of a slice, evenly spread.

    Args:
        still: hide the motion, as if each frame were a photograph.
        step: told how many frames of how many are done.
    """
    network.eval()
    coco, out = AveragePrecision(), Slice()
    all_scores, all_hits, truths = [np.zeros(0)], [np.zeros(0, bool)], 0
    chosen = spread(len(shards), limit)
    batches = Batches(shards, 1, SIZE, seed=0)
    for start in range(0, len(chosen), _PASS):
        rows = chosen[start : start + _PASS]
        batch = batches.pick(rows)
        motion = torch.zeros_like(batch.motion) if still else batch.motion
        answer = network(batch.image.to(device), motion.to(device))
        probability = 1 - answer.background.float().cpu().numpy()[:, 0]
        masks, scores = answer.masks.float().cpu().numpy() > 0, answer.scores.float().cpu().numpy()
        for i, row in enumerate(rows):
            _, stored, ids, kinds, origin = shards[row]
            moving = stored is not None and not still
            fields = targets(ids, kinds, origin, moving, np.random.default_rng(0))
            coarse = ids[::LABEL_STRIDE, ::LABEL_STRIDE]
            truth = _instances(coarse, kinds)
            foreground = _foreground_iou(probability[i], fields)
            if not len(truth):
                out.frames.append(FrameScore(foreground, None, None))
                continue
            keep = _claims(masks[i], scores[i], np.isin(kinds[coarse], (Kind.UNSURE, Kind.DISTRACTOR)))
            best, hits = match(masks[i][keep], scores[i][keep], truth)
            precision = None
            if origin in _COMPLETE:
                precision = float(np.mean([average_precision(scores[i][keep], row, len(truth)) for row in hits]))
                labels = np.zeros(coarse.shape, np.uint8)
                for value, mask in enumerate(truth, start=1):
                    labels[mask] = value
                coco.add(labels, Answer(masks[i][keep], scores[i][keep]))
                all_scores.append(scores[i][keep])
                all_hits.append(hits[0])
                truths += len(truth)
            out.frames.append(FrameScore(foreground, float(best.mean()), precision))
        step(len(out.frames), len(chosen))
    out.figures = _figures(out.frames, coco, truths)
    order = np.argsort(-np.concatenate(all_scores), kind="stable")
    found = np.cumsum(np.concatenate(all_hits)[order])
    out.recall = (found / max(1, truths)).tolist()
    out.precision = (found / np.arange(1, len(found) + 1)).tolist()
    return out


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` indices, evenly spread."""
    return [i * count // limit for i in range(limit)] if count > limit else list(range(count))


def _claims(masks: np.ndarray, scores: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Which proposals count, bool [N]: none that lie mostly where nothing is known, and no empty or silent ones."""
    area = masks.sum(axis=(1, 2))
    kept: np.ndarray = (area > 0) & (scores > _MIN_SCORE) & ((masks & ignored).sum(axis=(1, 2)) <= 0.5 * area)
    return kept


def _figures(frames: Sequence[FrameScore], coco: AveragePrecision, truths: int) -> dict[str, float]:
    figures = dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    if truths:
        found = coco.figures()
        figures = {name: found[name] for name in figures}
    for name, values in (
        ("foreground IoU", [frame.foreground for frame in frames]),
        ("best-mask IoU", [frame.best for frame in frames]),
    ):
        known = [value for value in values if value is not None]
        figures[name] = float(np.mean(known)) if known else 0.0
    return figures
