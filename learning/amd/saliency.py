"""Zero-shot saliency on stills (Sec. 4.2): the object's segment against a mask, by F_beta and MAE."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BETA_SQUARED = 0.3


@dataclass(frozen=True)
class SaliencyScore:
    """Over a set of stills.

    Attributes:
        f_beta: (1 + b) P R / (b P + R), b = 0.3, of the mean precision P and recall R at the adaptive threshold.
        mae: mean absolute difference of soft map and mask.
        images: how many.
    """

    f_beta: float
    mae: float
    images: int


def f_beta(precision: float, recall: float) -> float:
    """Harmonic mean that weighs precision more; 0 where both are 0."""
    below = BETA_SQUARED * precision + recall
    return (1 + BETA_SQUARED) * precision * recall / below if below > 0 else 0.0


def adaptive_threshold(saliency: np.ndarray) -> float:
    """Twice the mean (Achanta et al. 2009), but no more than the map reaches."""
    return min(2 * float(saliency.mean()), float(saliency.max()))


def score(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> SaliencyScore:
    """Score soft maps float [h, w] in [0, 1] against masks bool [h, w]; an empty set scores 0 and 1."""
    precisions, recalls, errors = [], [], []
    for saliency, mask in pairs:
        found = saliency >= max(adaptive_threshold(saliency), 1e-6)
        hits = np.count_nonzero(found & mask)
        precisions.append(hits / max(1, np.count_nonzero(found)))
        recalls.append(hits / max(1, np.count_nonzero(mask)))
        errors.append(float(np.abs(saliency - mask).mean()))
    if not errors:
        return SaliencyScore(0.0, 1.0, 0)
    f = f_beta(float(np.mean(precisions)), float(np.mean(recalls)))
    return SaliencyScore(f, float(np.mean(errors)), len(errors))
