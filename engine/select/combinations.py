"""The K cheapest sets of masks that do not exclude each other, exactly.

With an additive background loss these are the K minimum-weight independent sets of the conflict graph
(paper section 3.3, first stage). The search itself is in `search.py`.

Order of ties: a set comes before its own supersets of equal cost; which of several sets of equal cost
survive the cut at K follows from the search alone, hence from the input alone. The list returned is
sorted by cost, then size, then members.
"""

from dataclasses import dataclass

import numpy as np

from engine.select.search import UNLIMITED, enumerate_sets


@dataclass(frozen=True, slots=True)
class Enumeration:
    """What a search found.

    Attributes:
        combinations: (cost, sorted members), cheapest first.
        exact: True when these are the K cheapest.
        bound: no set that is missing here costs less; infinite when none is missing.
        nodes: search states expanded.
    """

    combinations: list[tuple[float, tuple[int, ...]]]
    exact: bool
    bound: float
    nodes: int


def best_combinations(weights: np.ndarray, conflicts: np.ndarray, k: int) -> list[tuple[float, tuple[int, ...]]]:
    """The k cheapest independent sets, the empty set (cost 0) among the candidates.

    Args:
        weights: float [N], additive cost of each mask; negative ones are worth taking.
        conflicts: bool [N, N], True where two masks exclude each other; diagonal ignored.
        k: how many; fewer come back when fewer exist.

    Returns:
        [(cost, sorted tuple of members)], cheapest first.

    Raises:
        ValueError: k below 1, shapes that do not agree, weights that are not finite.
    """
    return enumerate_combinations(weights, conflicts, k).combinations


def enumerate_combinations(
    weights: np.ndarray, conflicts: np.ndarray, k: int, *, node_budget: int | None = None
) -> Enumeration:
    """`best_combinations` that stops at a budget and says how far the truth can be away.

    Args:
        node_budget: search states; None never stops early. When it runs out the best open states are
            completed greedily, so that there always is an answer.

    Raises:
        ValueError: as `best_combinations`.
    """
    weights, conflicts = checked(weights, conflicts, k)
    budget = UNLIMITED if node_budget is None else node_budget
    costs, members, bound, finished, nodes = enumerate_sets(weights, ascending(weights), conflicts, k, budget)
    exact = finished or (len(costs) == k and bool(costs[-1] <= bound))
    return Enumeration(as_tuples(costs, members), exact, float(bound), int(nodes))


def checked(weights: np.ndarray, conflicts: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights as float64 [N] and conflicts as symmetric bool [N, N] without a diagonal."""
    weights = np.ascontiguousarray(weights, np.float64).reshape(-1)
    n = len(weights)
    conflicts = np.asarray(conflicts, bool)
    if n == 0:
        conflicts = conflicts.reshape(0, 0)
    if conflicts.shape != (n, n):
        raise ValueError(f"conflicts has shape {conflicts.shape}, {n} weights need ({n}, {n})")
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    if not np.isfinite(weights).all():
        raise ValueError(f"weight {int(np.flatnonzero(~np.isfinite(weights))[0])} is not finite")
    conflicts = conflicts | conflicts.T
    np.fill_diagonal(conflicts, False)
    return weights, conflicts


def ascending(weights: np.ndarray) -> np.ndarray:
    """Order in which the search branches, int64 [N]: cheapest mask first."""
    return np.argsort(weights, kind="stable")


def as_tuples(costs: np.ndarray, members: np.ndarray) -> list[tuple[float, tuple[int, ...]]]:
    """Costs [M] and memberships bool [M, N] as a list sorted by cost, size and members."""
    sets: list[list[int]] = [[] for _ in costs]
    rows, columns = members.nonzero()
    for row, member in zip(rows.tolist(), columns.tolist(), strict=True):
        sets[row].append(member)
    pairs = [(cost, tuple(chosen)) for cost, chosen in zip(costs.tolist(), sets, strict=True)]
    return sorted(pairs, key=lambda item: (item[0], len(item[1]), item[1]))
