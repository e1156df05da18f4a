"""Which frames of a fleet teach most together: what a thousand robots saw counts once, not a thousand times.

Greedy: the next frame is the one with the largest sum over its objects of novelty x (1 - largest similarity to the
objects chosen so far), the usefulness by which a robot keeps frames, over all robots. It can only fall while more is
chosen, so an old value is an upper bound and most frames need not be looked at again (lazy greedy).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.seeds.similarity import similarity, squared_distances


@dataclass(slots=True)
class Candidate:
    """One frame that may be chosen.

    Attributes:
        novelty: float64 [n] of its objects.
        space: which embeddings can be compared: those of one model.
        embeddings: float32 [n, E], NaN where an object has none; such an object is like no other.
        order: decides between equals.
    """

    novelty: np.ndarray
    space: str
    embeddings: np.ndarray
    order: tuple[str, str, int]
    seen: int = 0
    nearest: np.ndarray = field(default_factory=lambda: np.zeros(0))


def choose(candidates: Sequence[Candidate], limit: int | None) -> list[tuple[int, float]]:
    """Indices in the order chosen, each with what it added when it was.

    Args:
        limit: how many at most; None for all, most useful first.
    """
    count = len(candidates) if limit is None else min(limit, len(candidates))
    chosen: dict[str, list[np.ndarray]] = {}
    heap = [(-float(c.novelty.sum()), c.order, i) for i, c in enumerate(candidates)]
    heapq.heapify(heap)
    out: list[tuple[int, float]] = []
    while heap and len(out) < count:
        _, order, index = heapq.heappop(heap)
        candidate = candidates[index]
        gain = _gain(candidate, chosen.setdefault(candidate.space, []))
        if heap and (-gain, order) > heap[0][:2]:
            heapq.heappush(heap, (-gain, order, index))
            continue
        out.append((index, gain))
        known = candidate.embeddings[np.isfinite(candidate.embeddings).all(axis=1)]
        chosen[candidate.space].extend(known)
    return out


def _gain(candidate: Candidate, chosen: list[np.ndarray]) -> float:
    """Usefulness of a frame beside those chosen; compares with what was chosen since the last time only."""
    if not len(candidate.nearest):
        candidate.nearest = np.zeros(len(candidate.novelty))
    newest = chosen[candidate.seen :]
    known = np.isfinite(candidate.embeddings).all(axis=1)
    if newest and known.any():
        alike = similarity(squared_distances(candidate.embeddings[known], np.stack(newest))).max(axis=1)
        candidate.nearest[known] = np.maximum(candidate.nearest[known], alike)
    candidate.seen = len(chosen)
    return float((candidate.novelty * (1 - candidate.nearest)).sum())
