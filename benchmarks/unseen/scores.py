"""COCO figures of a detector on held-out stills."""

from collections.abc import Iterable

from benchmarks.unseen.detector import detections
from benchmarks.unseen.world import Pictures
from learning.average_precision import AveragePrecision
from learning.networks.compact import Compact

FIGURES = ("AP", "AP50", "AP75", "AR1", "AR3", "AR5")
"""The columns of the paper's tables; no still holds more than five objects."""

_DETECTIONS = (1, 3, 5, 100)


def score(network: Compact, stills: Pictures) -> dict[str, float]:
    """`FIGURES` in percent."""
    judge = AveragePrecision(_DETECTIONS)
    for image, ids in zip(stills.images, stills.ids, strict=True):
        judge.add(ids, detections(network, image))
    found = judge.figures()
    return {name: 100 * found[name.replace("AR", "AR@")] for name in FIGURES}


def efficiency(ours: float, before: float, by_truth: float) -> float | None:
    """Our share of what a perfect selection among the same candidates gains; None where nothing can be gained."""
    return (ours - before) / (by_truth - before) if by_truth > before else None


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    known = list(values)
    mean = sum(known) / len(known)
    if len(known) == 1:
        return mean, 0.0
    return mean, (sum((v - mean) ** 2 for v in known) / (len(known) - 1)) ** 0.5
