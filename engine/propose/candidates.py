"""From raw percepts to the candidates the selection chooses from.

Many cheap candidates and an exact choice beat one clever head, so the foreground map's connected
components at several levels join the network's masks.
"""

import dataclasses
import time

import cv2
import numba
import numpy as np

from engine.config import ProposeConfig
from engine.percepts import Percepts

_OUTSIDE = np.float32(-6.0)
"""Logit of pixels that belong to another component of the same level."""

_UNCONFIRMED = np.float32(0.3)
"""Share of its score a blob keeps when no instance proposal supports it; best of 0.3, 0.5, 1 on held-out synthesis."""


def foreground_components(
    background: np.ndarray, thresholds: tuple[float, ...], min_area_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of the foreground map at several levels, as soft masks.

    Args:
        background: float32 [h, w] probability of background.
        thresholds: foreground probabilities to cut at.
        min_area_px: smaller components are left out.

    Returns:
        logits float32 [n, h, w], positive inside a component with a zero crossing at its border, and
        scores float32 [n], the mean foreground probability inside.
    """
    foreground = np.clip(1.0 - background, 0.01, 0.99)
    level_logit = np.log(foreground / (1.0 - foreground)).astype(np.float32)
    logits, scores = [], []
    for threshold in thresholds:
        binary = (foreground > threshold).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=4)
        area = stats[:count, cv2.CC_STAT_AREA]
        # All of the picture is no object: it is what a model without a background map says everywhere.
        large = np.flatnonzero((area[1:] >= min_area_px) & (area[1:] < binary.size)) + 1
        zero_at = np.float32(np.log(threshold / (1.0 - threshold)))
        found, total = _cut_out(level_logit, foreground, labels, large, zero_at, _OUTSIDE)
        logits.append(found)
        scores.append(total / stats[large, cv2.CC_STAT_AREA])
    if not logits:
        return np.empty((0, *background.shape), np.float32), np.empty(0, np.float32)
    return np.concatenate(logits), np.concatenate(scores).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _cut_out(level_logit, foreground, labels, chosen, zero_at, outside):  # type: ignore[no-untyped-def]
    """Logits float32 [n, h, w] of the chosen components, and the sum of the foreground inside each."""
    h, w = labels.shape
    out = np.empty((len(chosen), h, w), np.float32)
    total = np.zeros(len(chosen))
    for n in range(len(chosen)):
        for y in range(h):
            for x in range(w):
                label = labels[y, x]
                # Background far from this component lies below zero anyway; only other components must be shut out.
                out[n, y, x] = level_logit[y, x] - zero_at if label == chosen[n] or label == 0 else outside
                if label == chosen[n]:
                    total[n] += foreground[y, x]
    return out, total


def confirmed_scores(
    component_scores: np.ndarray, components: np.ndarray, masks: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Scores of blobs, lowered where no instance proposal agrees with them.

    A blob of the foreground map says that something moves there, not that it is one thing. Its score is
    its mean foreground probability times 0.3 + 0.7 max_i IoU(blob, mask_i) score_i.

    Args:
        component_scores: float32 [C].
        components: bool [C, h, w].
        masks: bool [N, h, w] of the network; without any, nothing can confirm and scores stay.
        scores: float32 [N].

    Returns:
        float32 [C].
    """
    if not len(masks) or not len(components):
        return component_scores
    a = components.reshape(len(components), -1).astype(np.float32)
    b = masks.reshape(len(masks), -1).astype(np.float32)
    shared = a @ b.T
    iou = shared / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared, 1.0)
    support = (iou * scores[None]).max(axis=1)
    return component_scores * (_UNCONFIRMED + (1 - _UNCONFIRMED) * support).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _keep(masks, order, min_area_px, duplicate_iou, limit):  # type: ignore[no-untyped-def]
    """Indices of masks kept, in `order`, dropping specks and duplicates of kept ones."""
    count, pixels = masks.shape
    area = np.zeros(count, np.int64)
    for i in range(count):
        for p in range(pixels):
            area[i] += masks[i, p]
    kept = np.empty(count, np.int64)
    n = 0
    for i in order:
        if n == limit:
            break
        if area[i] < min_area_px:
            continue
        duplicate = False
        for k in range(n):
            j = kept[k]
            small, large = min(area[i], area[j]), max(area[i], area[j])
            if small <= duplicate_iou * large:
                continue  # the intersection over union cannot exceed the ratio of the areas
            inter = 0
            for p in range(pixels):
                inter += masks[i, p] & masks[j, p]
            if inter > duplicate_iou * (area[i] + area[j] - inter):
                duplicate = True
                break
        if not duplicate:
            kept[n] = i
            n += 1
    return kept[:n]


def propose(percepts: Percepts, config: ProposeConfig) -> Percepts:
    """Percepts with the candidates the selection sees, best score first.

    Adds the foreground map's components where motion speaks in it: from appearance alone it merges what
    lies together, and on held-out piles the network's masks find more without them (F1 0.54 against 0.48).
    Drops specks (below `min_area`) and duplicates (intersection over union above `duplicate_iou`), keeps
    at most `proposals`.
    """
    start = time.perf_counter()
    h, w = percepts.background.shape
    min_area_px = max(1, round(config.min_area * h * w))
    from_appearance = percepts.flow is None and len(percepts.masks) > 0
    thresholds = () if from_appearance else config.foreground_thresholds
    extra, extra_scores = foreground_components(percepts.background, thresholds, min_area_px)
    extra_scores = confirmed_scores(extra_scores, extra > 0, percepts.masks, percepts.scores)
    logits = np.concatenate([percepts.logits, extra])
    scores = np.concatenate([percepts.scores, extra_scores])
    masks = logits > 0
    order = np.argsort(-scores, kind="stable")
    flat = np.ascontiguousarray(masks.reshape(len(masks), h * w)).view(np.uint8)
    kept = _keep(flat, order, min_area_px, config.duplicate_iou, config.proposals)
    timing = {**percepts.timing_ms, "propose": (time.perf_counter() - start) * 1e3}
    return dataclasses.replace(percepts, masks=masks[kept], scores=scores[kept], logits=logits[kept], timing_ms=timing)
