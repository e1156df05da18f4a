"""Candidates for what no proposal covers: a seed's own initial foreground, grown from its region."""

import numpy as np

from engine.seeds.config import SeedsConfig
from engine.seeds.regions import MergeTree, region_shares
from engine.seeds.sets import initial_foreground


def uncovered(labels: np.ndarray, masks: np.ndarray, regions: int, region_share: float) -> np.ndarray:
    """Regions of which no single mask holds more than `region_share`: bool [S].

    Args:
        labels: int64 [P].
        masks: bool [N, h, w]; N may be 0.
        regions: S.
    """
    if not len(masks):
        return np.ones(regions, bool)
    free: np.ndarray = region_shares(labels, masks, regions).max(axis=0) <= region_share
    return free


def grow_candidates(
    tree: MergeTree,
    labels: np.ndarray,
    pixels: np.ndarray,
    background: np.ndarray,
    free: np.ndarray,
    foreground: np.ndarray,
    config: SeedsConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks grown from free seeds by Eq. 11, the most foreground-like first.

    A grown mask takes the free seeds it covers with it, so that one object grows once.

    Args:
        tree: of the frame.
        labels: int64 [P], region of each pixel.
        pixels: int64 [S], row-major seeds.
        background: bool [S], background set.
        free: bool [S], regions no proposal covers.
        foreground: float32 [P], P_FG.
        config: limits.

    Returns:
        masks bool [M, P] and scores float32 [M], M at most `config.grown`.
    """
    total = len(labels)
    mean = np.bincount(labels, foreground, len(pixels)) / np.maximum(np.bincount(labels, minlength=len(pixels)), 1)
    waiting = free & ~background & (mean > config.grown_foreground)
    masks: list[np.ndarray] = []
    scores: list[float] = []
    against = pixels[background]
    while len(against) and waiting.any() and len(masks) < config.grown:
        seed = int(np.argmax(np.where(waiting, mean, -1.0)))
        waiting[seed] = False
        mask = initial_foreground(tree, int(pixels[seed]), against)
        area = int(mask.sum())
        if not max(1.0, config.min_area * total) <= area <= config.max_area * total:
            continue
        waiting &= region_shares(labels, mask[None], len(pixels))[0] <= config.region_share
        masks.append(mask)
        scores.append(config.grown_score * float(foreground[mask].mean()))
    return np.array(masks, bool).reshape(-1, total), np.array(scores, np.float32)
