"""A synthetic video of percepts, with as many candidate masks per frame as a benchmark asks for."""

from collections.abc import Iterator

import numpy as np

from engine.percepts import Percepts
from engine.select.masks import conflicts, pack

GRID = (64, 112)
"""Height, width of the working grid."""


def blob_video(rng: np.random.Generator, frames: int, n: int, scored: bool = True) -> Iterator[Percepts]:
    """Six ellipses that move over a panning background, seen dimly by the background map, and n candidates.

    Candidates are good, shifted, too large, merged and invented masks, without specks and duplicates. Like
    a detector's, a score follows the overlap with the nearest object, and only roughly; not `scored`, all are 1,
    which tells the selection that everything is an object.
    """
    h, w = GRID
    y, x = np.mgrid[0:h, 0:w]
    places = rng.uniform([12, 10], [w - 12, h - 10], size=(6, 2))
    speeds = rng.uniform(-1.5, 1.5, size=(6, 2))
    radii = rng.uniform([5, 4], [12, 9], size=(6, 2))
    sureness = rng.uniform(0.05, 0.7, size=6)

    def ellipse(place: np.ndarray, radius: np.ndarray) -> np.ndarray:
        wobble = 0.15 * np.sin(3 * np.arctan2(y - place[1], x - place[0]) + place[0])
        inside: np.ndarray = np.hypot((x - place[0]) / radius[0], (y - place[1]) / radius[1]) < 1 + wobble
        return inside

    for t in range(frames):
        places = places + speeds
        speeds = np.where((places < 6) | (places > [w - 6, h - 6]), -speeds, speeds)
        truth = [ellipse(place, radius) for place, radius in zip(places, radii, strict=True)]
        residual = rng.normal(0, 0.15, size=(2, h, w))
        background = np.full((h, w), 0.9)
        for mask, speed, sure in zip(truth, speeds, sureness, strict=True):
            residual[:, mask] -= speed[:, None]
            background[mask] = sure + rng.normal(0, 0.08)
        masks = list(truth[:n])
        while len(masks) < n:
            i, j = rng.integers(0, 6, size=2)
            kind = rng.random()
            if kind < 0.5:
                mask = ellipse(places[i] + rng.normal(0, 2.5, size=2), radii[i] * rng.uniform(0.5, 1.5, size=2))
            elif kind < 0.65:
                mask = truth[i] | truth[j]
            else:
                mask = ellipse(rng.uniform([0, 0], [w, h]), rng.uniform([2, 2], [12, 10]))
            stack = np.array(masks)
            iou = (stack & mask).sum(axis=(1, 2)) / np.maximum((stack | mask).sum(axis=(1, 2)), 1)
            if mask.sum() >= 8 and iou.max() <= 0.9:
                masks.append(mask)
        stack = np.array(masks)
        overlaps = _overlaps(stack, np.array(truth)) + rng.normal(0, 0.15, n)
        flow = (residual + np.array([0.8, -0.3])[:, None, None]).astype(np.float32)
        yield Percepts(
            masks=stack,
            scores=np.clip(overlaps if scored else np.ones(n), 0, 1).astype(np.float32),
            background=np.clip(background + rng.normal(0, 0.05, size=(h, w)), 0, 1).astype(np.float32),
            embedding=None,
            flow=flow if t else None,
            residual=residual.astype(np.float32) if t else None,
            logits=np.where(stack, 1.0, -1.0).astype(np.float32),
        )


def _overlaps(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of each mask [N, h, w] with the object it covers best, float64 [N]."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (masks, truth))
    both = a @ b.T
    best: np.ndarray = (both / np.maximum(a.sum(1)[:, None] + b.sum(1) - both, 1)).max(axis=1).astype(np.float64)
    return best


def frame_graph(percepts: Percepts) -> tuple[np.ndarray, np.ndarray]:
    """Weights and conflicts of a frame's candidates, as the selection sees them."""
    clamped = np.clip(percepts.background, 0.01, 0.99).astype(np.float64)
    logit = np.log(clamped / (1 - clamped))
    weights = np.array([logit[mask].sum() / logit.size for mask in percepts.masks])
    return weights, conflicts(pack(percepts.masks), 0.05)
