"""Slow definitions: what the fast selection must agree with. For tests and benchmarks only.

Everything works on plain bool masks, one pixel set and one pair of combinations at a time, and shares no
code with the fast path.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from engine.percepts import Percepts
from engine.select.config import SelectionConfig

Combinations = list[tuple[float, tuple[int, ...]]]


def brute_force_combinations(weights: np.ndarray, conflicts: np.ndarray, k: int) -> Combinations:
    """The k cheapest of all independent sets, by looking at every one of them."""
    n = len(weights)
    blocked = [sum(1 << b for b in range(n) if b != a and (conflicts[a, b] or conflicts[b, a])) for a in range(n)]
    sets: Combinations = [(0.0, ())]
    bits = [0]
    for mask in range(n):
        for i in range(len(sets)):
            if not bits[i] & blocked[mask]:
                cost, members = sets[i]
                sets.append((cost + float(weights[mask]), (*members, mask)))
                bits.append(bits[i] | 1 << mask)
    return sorted(sets, key=lambda item: (item[0], len(item[1]), item[1]))[:k]


def paper_combinations(weights: np.ndarray, conflicts: np.ndarray, k: int) -> Combinations:
    """The paper's first stage: k shortest paths in a binary tree, by Dijkstra run again for each of them.

    Level i of the tree decides mask i; the branch that selects it is forbidden when an ancestor conflicts.
    Edge costs are shifted per level to be non-negative, which every root-leaf path pays alike. Each run
    starts from the root and avoids the leaves found by earlier runs (paper section 3.3).
    """
    n = len(weights)
    select = [max(float(w), 0.0) for w in weights]
    skip = [max(-float(w), 0.0) for w in weights]
    found: Combinations = []
    taken: set[tuple[int, ...]] = set()
    while len(found) < k:
        queue: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
        leaf = None
        while queue:
            cost, negative_level, members = heapq.heappop(queue)
            level = -negative_level
            if level == n:
                if members in taken:
                    continue
                leaf = members
                break
            heapq.heappush(queue, (cost + skip[level], -level - 1, members))
            if not any(conflicts[level, m] for m in members):
                heapq.heappush(queue, (cost + select[level], -level - 1, (*members, level)))
        if leaf is None:
            break
        taken.add(leaf)
        found.append((float(sum(weights[m] for m in leaf)), leaf))
    return found


def paper_path(unaries: Sequence[np.ndarray], pairwises: Sequence[np.ndarray | None]) -> tuple[list[int], float]:
    """The paper's second stage: Dijkstra from the first to the last frame over the whole video.

    Args:
        unaries: float [K_t] per frame.
        pairwises: float [K_{t-1}, K_t] per frame, None for no coupling; the first is ignored.
    """
    last = len(unaries) - 1
    steps: list[np.ndarray] = [np.asarray(unaries[0], float)[None, :]]
    for t in range(1, len(unaries)):
        coupling = pairwises[t]
        rows = len(unaries[t - 1])
        table = np.zeros((rows, len(unaries[t]))) if coupling is None else np.asarray(coupling, float)
        steps.append(table + np.asarray(unaries[t], float)[None, :])
    shifts = [float(step.min()) for step in steps]
    queue: list[tuple[float, int, int, tuple[int, ...]]] = [(0.0, 0, 0, ())]
    settled = set()
    while queue:
        cost, negative_t, node, nodes = heapq.heappop(queue)
        t = -negative_t
        if t > last:
            return list(nodes), cost + sum(shifts)
        if (t, node) in settled:
            continue
        settled.add((t, node))
        for following, step in enumerate((steps[t][node] - shifts[t]).tolist()):
            heapq.heappush(queue, (cost + step, -t - 1, following, (*nodes, following)))
    raise ValueError("no path")


def slow_conflicts(masks: np.ndarray, tolerance: float) -> np.ndarray:
    """bool [N, N]: overlap above `tolerance` of the smaller mask."""
    n = len(masks)
    out = np.zeros((n, n), bool)
    for a in range(n):
        for b in range(n):
            smaller = min(masks[a].sum(), masks[b].sum())
            out[a, b] = a != b and (masks[a] & masks[b]).sum() > tolerance * smaller
    return out


def slow_background_loss(background: np.ndarray, foreground: np.ndarray, clamp: float) -> float:
    """Eq. 3: mean binary cross entropy of the background map against the unselected pixels."""
    b = np.clip(background.astype(np.float64), clamp, 1.0 - clamp)
    return float(np.where(foreground, -np.log(1.0 - b), -np.log(b)).mean())


def slow_score_weight(mask: np.ndarray, score: float, config: SelectionConfig) -> float:
    """What the detector's score of one mask adds to the cost of selecting it."""
    clamp, reference = config.background_clamp, config.score_reference
    score = min(max(float(score), clamp), 1.0 - clamp)
    ratio = (score / (1.0 - score)) / (reference / (1.0 - reference))
    return -config.score_weight * float(np.log(ratio)) * float(mask.mean())


def slow_owners(masks: np.ndarray, members: Sequence[int], background: np.ndarray, clamp: float) -> np.ndarray:
    """int [h, w]: the selected mask with the lowest mean background log-odds over each pixel, -1 for none."""
    b = np.clip(background.astype(np.float64), clamp, 1.0 - clamp)
    logit = np.log(b) - np.log(1.0 - b)
    owners = np.full(background.shape, -1)
    best = np.full(background.shape, np.inf)
    for member in sorted(members):
        if masks[member].any():
            mean = logit[masks[member]].mean()
            better = masks[member] & (mean <= best)
            owners[better] = member
            best[better] = mean
    return owners


def slow_source(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column [h, w] of each pixel's content in the previous frame, and where that is inside."""
    _, h, w = flow.shape
    y, x = np.mgrid[0:h, 0:w]
    row = np.floor(y + flow[1] + np.float32(0.5)).astype(int)
    column = np.floor(x + flow[0] + np.float32(0.5)).astype(int)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    return row.clip(0, h - 1), column.clip(0, w - 1), inside


def slow_consistency_loss(
    past: np.ndarray, newest: np.ndarray, flow: np.ndarray | None, both_empty: float = -1.0
) -> float:
    """Eq. 5 of two bool [h, w] selections; `flow` moves the past first."""
    counted = np.ones(past.shape, bool)
    if flow is not None:
        row, column, counted = slow_source(flow)
        past = past[row, column]
    either = ((past | newest) & counted).sum()
    if either:
        return -float((past & newest & counted).sum() / either)
    return 0.0 if newest.any() else both_empty


def slow_flow_loss(
    flow: np.ndarray,
    residual: np.ndarray,
    masks: np.ndarray,
    owners: np.ndarray,
    past: np.ndarray,
    min_flow_px: float,
) -> float:
    """Eq. 4, explained form, of one selection (`owners` int [h, w]) against the past one (bool [h, w])."""
    values = residual.astype(np.float64)
    z = np.abs(values - values.mean(axis=(1, 2), keepdims=True)).sum()
    if z <= 0.0 or z / owners.size < min_flow_px:
        return 0.0
    foreground = owners >= 0
    mean = values.mean(axis=(1, 2)) if foreground.all() else values[:, ~foreground].mean(axis=1)
    unexplained = np.abs(values - mean[:, None, None]).sum(axis=0)
    row, column, inside = slow_source(flow)
    explained = foreground & inside & past[row, column]
    total = unexplained.sum()
    for member in np.unique(owners[foreground]):
        own = values[:, masks[member]].mean(axis=1)
        pixels = explained & (owners == member)
        within = np.abs(values[:, pixels] - own[:, None]).sum(axis=0)
        total -= np.maximum(unexplained[pixels] - within, 0.0).sum()
    return float(total / z)


def slow_distinct(combinations: Combinations, masks: np.ndarray, k: int, max_iou: float) -> Combinations:
    """The first k of `combinations` whose unions overlap no earlier kept one by more than `max_iou`."""
    kept: Combinations = []
    unions: list[np.ndarray] = []
    for item in combinations:
        union = np.asarray(masks[list(item[1])].any(axis=0))
        overlaps = [
            (union & other).sum() / (union | other).sum() if (union | other).any() else np.inf for other in unions
        ]
        if max_iou >= 1.0 or all(overlap <= max_iou for overlap in overlaps):
            kept.append(item)
            unions.append(union)
    return kept[:k]


def slow_costs(
    video: Sequence[Percepts], config: SelectionConfig
) -> tuple[list[list[tuple[int, ...]]], list[np.ndarray], list[np.ndarray | None]]:
    """Kept combinations, unary and pairwise costs (explained flow form) of every frame of a short video."""
    combinations: list[list[tuple[int, ...]]] = []
    unaries: list[np.ndarray] = []
    pairwises: list[np.ndarray | None] = []
    selected: list[np.ndarray] = []
    for percepts in video:
        background, masks, clamp = percepts.background, percepts.masks, config.background_clamp
        nothing = slow_background_loss(background, np.zeros(background.shape, bool), clamp)
        prior = np.array([slow_score_weight(m, s, config) for m, s in zip(masks, percepts.scores, strict=True)])
        alone = np.array([slow_background_loss(background, mask, clamp) - nothing for mask in masks])
        weights = config.lambda_background * alone + prior
        everything = 1 << len(masks)
        ranked = brute_force_combinations(weights, slow_conflicts(masks, config.overlap_allowed), everything)
        kept = [m for _, m in slow_distinct(ranked, masks, config.combinations, config.near_copy_iou)]
        owners = [slow_owners(masks, members, background, clamp) for members in kept]
        foregrounds = [o >= 0 for o in owners]
        losses = np.array([slow_background_loss(background, f, clamp) for f in foregrounds])
        unaries.append(config.lambda_background * losses + [sum(prior[m] for m in members) for members in kept])
        table = np.zeros((len(selected), len(kept)))
        for j, past in enumerate(selected):
            for k, foreground in enumerate(foregrounds):
                warp = percepts.flow if config.warped else None
                table[j, k] = config.lambda_consistency * slow_consistency_loss(
                    past, foreground, warp, config.both_empty
                )
                if percepts.flow is not None and percepts.residual is not None:
                    table[j, k] += config.lambda_flow * slow_flow_loss(
                        percepts.flow, percepts.residual, masks, owners[k], past, config.min_flow_px
                    )
        pairwises.append(table if combinations else None)
        combinations.append(kept)
        selected = foregrounds
    return combinations, unaries, pairwises
