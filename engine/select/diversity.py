"""K answers instead of one answer K times: cheap combinations whose unions differ.

With many candidates the K cheapest combinations become near-copies of the best and K buys nothing.
Combinations are enumerated in exact order and one is kept only if its union overlaps every kept one by
at most a given IoU (ours; the paper keeps all).
"""

import numpy as np

from engine.select.combinations import Enumeration, as_tuples, ascending, checked
from engine.select.compiled import compiled, popcount
from engine.select.masks import PackedMasks
from engine.select.search import enumerate_sets

_GROWTH = 4
_MOST_EXAMINED = 16
"""Combinations looked at per kept one; a crowd of specks must not turn one frame into thousands of sets."""


@compiled
def _distinct(members: np.ndarray, words: np.ndarray, k: int, max_iou: float) -> np.ndarray:
    """Rows of `members` kept, in order: at most k, pairwise union IoU at most `max_iou`."""
    n_words = words.shape[1]
    kept = np.empty(k, np.int64)
    unions = np.empty((k, n_words), np.int64)
    count = 0
    for row in range(len(members)):
        if count == k:
            break
        union = unions[count]
        for j in range(n_words):
            union[j] = 0
        for v in range(members.shape[1]):
            if members[row, v]:
                for j in range(n_words):
                    union[j] |= words[v, j]
        distinct = True
        for other in range(count):
            shared, either = 0, 0
            for j in range(n_words):
                shared += popcount(union[j] & unions[other, j])
                either += popcount(union[j] | unions[other, j])
            # Two unions without pixels are the same answer.
            if either == 0 or shared > max_iou * either:
                distinct = False
                break
        if distinct:
            kept[count] = row
            count += 1
    return kept[:count]


def diverse_combinations(
    weights: np.ndarray,
    conflicts: np.ndarray,
    masks: PackedMasks,
    k: int,
    max_iou: float,
    node_budget: int,
) -> Enumeration:
    """At most k cheap combinations that differ, cheapest first; the cheapest of all is always the first.

    Args:
        weights: float [N].
        conflicts: bool [N, N].
        masks: the N masks.
        max_iou: union IoU above which the dearer of two combinations is left out; 1 keeps all.
        node_budget: search states per enumeration; `exact` tells whether they sufficed.

    Returns:
        What was kept. Fewer than k when 16 k combinations hold no more; `bound` is about all sets that
        were not examined.

    Raises:
        ValueError: as `best_combinations`.
    """
    weights, conflicts = checked(weights, conflicts, k)
    order = ascending(weights)
    # Near-copies are the rule: looking at a few more at once is cheaper than looking twice.
    examined = k if max_iou >= 1.0 else _GROWTH * k
    while True:
        costs, members, bound, finished, nodes = enumerate_sets(weights, order, conflicts, examined, node_budget)
        exact = finished or (len(costs) == examined and bool(costs[-1] <= bound))
        rows = np.arange(len(costs)) if max_iou >= 1.0 else _distinct(members, masks.words, k, max_iou)
        enough = len(rows) >= k or len(costs) < examined or examined >= _MOST_EXAMINED * k
        if enough or not finished:
            rows = rows[:k]
            return Enumeration(as_tuples(costs[rows], members[rows]), exact, float(bound), int(nodes))
        examined *= _GROWTH
