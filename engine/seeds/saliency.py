"""What moves unlike the background (Sec. 3.3, Eq. 7 and 8)."""

from dataclasses import dataclass

import numpy as np

from engine.select.compiled import compiled


@dataclass(frozen=True, slots=True)
class Saliency:
    """Motion of the seeds of one frame.

    Attributes:
        motion: M, float32 [S] in [0, 1].
        moving: False when nothing moves enough to tell things from background.
    """

    motion: np.ndarray
    moving: bool


@compiled
def _region_means(labels: np.ndarray, values: np.ndarray, regions: int) -> np.ndarray:
    channels = len(values)
    out = np.zeros((regions, channels), np.float64)
    area = np.zeros(regions, np.float64)
    for p in range(len(labels)):
        area[labels[p]] += 1.0
        for c in range(channels):
            out[labels[p], c] += values[c, p]
    for s in range(regions):
        for c in range(channels):
            out[s, c] /= max(area[s], 1.0)
    return out


def region_means(labels: np.ndarray, values: np.ndarray, regions: int) -> np.ndarray:
    """Mean of float32 [C, P] over each region of labels int64 [P]: float64 [S, C], 0 for empty regions."""
    return _region_means(labels, np.ascontiguousarray(values, np.float32), regions)


def lowest_objectness(objectness: np.ndarray, share: int) -> np.ndarray:
    """Indices of the N_BG = S / `share` seeds with the lowest objectness, at least one (Sec. 3.3)."""
    count = max(1, len(objectness) // share)
    return np.argsort(objectness, kind="stable")[:count]


def motion_saliency(flow: np.ndarray, background: np.ndarray, min_motion_px: float) -> Saliency:
    """M(s) = min_b |v_s - v_b|^2 / Z with Z the largest of them (Eq. 7, 8).

    Z is not taken below `min_motion_px` squared: where nothing moves M is 0 up to noise, never 0/0.

    Args:
        flow: float [S, 2], mean flow of each seed's region in pixels.
        background: indices of the seeds that model background motion, at least one.
        min_motion_px: relative motion that counts.
    """
    difference = flow[:, None] - flow[background][None]
    apart = (difference * difference).sum(axis=2).min(axis=1)
    largest, floor = float(apart.max()), min_motion_px * min_motion_px
    return Saliency((apart / max(largest, floor)).astype(np.float32), largest >= floor)
