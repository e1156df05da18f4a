"""Online shortest path through the combinations of consecutive frames (Eq. 2), with a certificate.

V_t(k) = u_t(k) + min_j [V_{t-1}(j) + E_t(j, k)] is extended by one frame per push: O(K^2) time, memory for
the undecided frames only. A frame is committed when every node that can still end the best path has the
same ancestor there; nothing that comes later can change it. At the deadline the oldest frame is committed
to the ancestor of the currently best path, and the undecided frames are solved again with that node fixed.

Certificate. Let V be the values before a forced commit, V' those after it, and G(k) what the future will
cost from node k on. Forcing raises the optimum from min_k [V(k) + G(k)] to min_k [V'(k) + G(k)], by at
most rho = max_k [V'(k) - V(k)] >= 0. That supposes nothing about the future nor about the sign of any
cost, and the bounds of successive forced commits add up: total cost <= offline optimum + sum of rho.
With max_lag 0 the node forced is the newest itself, V' is infinite elsewhere and rho says nothing until
the next frame arrives: there the bound is taken one frame later and published with that frame's commit
(a stream that ends first lost nothing).

A second recursion that is never forced runs along; a commit is called exact only if that one has agreed
on the same node, so exactness is about the optimum over the whole video even after forced commits.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.select.compiled import compiled


class _Commit(NamedTuple):
    frame_index: int
    node: int
    exact: bool
    loss_bound: float


class PathCommit(_Commit):
    """One decided frame, a tuple (frame_index, node, exact, loss_bound).

    Attributes:
        frame_index: number of frames pushed before this one since construction or `reset`.
        node: index into the unary costs of that frame.
        exact: True when the whole-video optimum is known to choose this node (and `loss_bound` is 0).
        loss_bound: what forced decisions published here can have cost at most, in units of Eq. 2.
        margin: how much dearer the best path seen through any other node of that frame is; infinite when
            there was no other.
    """

    margin: float

    def __new__(
        cls, frame_index: int, node: int, exact: bool, loss_bound: float, margin: float = float("inf")
    ) -> "PathCommit":
        commit = super().__new__(cls, frame_index, node, exact, loss_bound)
        commit.margin = margin
        return commit


@dataclass(slots=True)
class _Frame:
    """One undecided frame: its costs, the value of each node and the best predecessor of each node."""

    index: int
    unary: np.ndarray
    pairwise: np.ndarray
    shift: float
    values: np.ndarray
    parents: list[int]
    free_parents: list[int]


@compiled
def _relax(values: np.ndarray, pairwise: np.ndarray, unary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and best predecessor of every node of the next frame; the first of equal predecessors."""
    out = np.empty(len(unary))
    parents = np.zeros(len(unary), np.int64)
    for k in range(len(unary)):
        best = np.inf
        for j in range(len(values)):
            cost = values[j] + pairwise[j, k]
            if cost < best:
                best = cost
                parents[k] = j
        out[k] = best + unary[k]
    return out, parents


@compiled
def _cost_to_end(pairwise: np.ndarray, unary: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Cheapest way from every node of a frame to the end, given that of the frame after it."""
    out = np.full(len(pairwise), np.inf)
    for j in range(len(pairwise)):
        for k in range(len(unary)):
            out[j] = min(out[j], pairwise[j, k] + unary[k] + later[k])
    return out


class OnlinePath:
    """Chooses one node per frame, as early as possible and at the latest `max_lag` frames later.

    Args:
        max_lag: frames a decision may wait; 0 decides at once, None waits for agreement however long.

    Raises:
        ValueError: negative max_lag.
    """

    def __init__(self, max_lag: int | None) -> None:
        if max_lag is not None and max_lag < 0:
            raise ValueError(f"max_lag={max_lag}: must be 0 or more, or None")
        self._max_lag = max_lag
        self.reset()

    def reset(self) -> None:
        """Forget everything, undecided frames included; the next frame is number 0."""
        self._count = 0
        self._start()

    def _start(self) -> None:
        self._window: deque[_Frame] = deque()
        self._values: np.ndarray | None = None
        self._free_values = np.zeros(0)
        self._before_forcing: np.ndarray | None = None

    def push(self, unary: np.ndarray, pairwise: np.ndarray | None) -> list[PathCommit]:
        """Add a frame and return what is decided now, oldest first.

        Args:
            unary: float [K], cost of each node, K >= 1; may be negative, +inf forbids a node.
            pairwise: float [K of the previous frame, K], cost of each transition; None for the first frame
                and where nothing couples it to the previous one.

        Raises:
            ValueError: shapes that do not fit, NaN or -inf, or no path of finite cost.
        """
        costs = np.ascontiguousarray(unary, np.float64)
        coupling = self._coupling(costs, pairwise)
        if self._values is None:
            values, parents = costs.copy(), np.zeros(len(costs), np.int64)
            free_values, free_parents = values.copy(), parents
        else:
            values, parents = _relax(self._values, coupling, costs)
            free_values, free_parents = _relax(self._free_values, coupling, costs)
        shift = float(values.min())
        if not np.isfinite(shift):
            raise ValueError(f"frame {self._count}: no node can be reached at finite cost")
        owed = 0.0
        if self._before_forcing is not None:
            unforced, _ = _relax(self._before_forcing, coupling, costs)
            owed = _largest_rise(unforced, values)
            self._before_forcing = None
        # Only differences matter; keeping the best at 0 keeps them precise on endless streams.
        self._values = values - shift
        self._free_values = free_values - free_values.min()
        self._window.append(
            _Frame(self._count, costs, coupling, shift, self._values, parents.tolist(), free_parents.tolist())
        )
        self._count += 1
        commits = self._commit_agreed(owed)
        while self._max_lag is not None and len(self._window) > self._max_lag:
            commits.append(self._force(0.0 if commits else owed))
            commits += self._commit_agreed(0.0)
        return commits

    def flush(self) -> list[PathCommit]:
        """Decide every undecided frame as if the stream ended here; the next frame starts a new path."""
        if not self._window:
            self._start()
            return []
        nodes = self._trace(self.best_node)
        best = int(self._free_values.argmin())
        free = [{node} for node in _trace_back([f.free_parents for f in self._window], best)]
        commits = self._publish(nodes, free, 0.0)
        self._start()
        return commits

    @property
    def best_node(self) -> int:
        """The newest frame's node on the currently best path.

        Raises:
            ValueError: no frame since the start, `flush` or `reset`.
        """
        if self._values is None:
            raise ValueError("no frame has been pushed")
        return int(self._values.argmin())

    @property
    def margin(self) -> float:
        """How much dearer the best path to another node of the newest frame is; infinite without one."""
        if self._values is None or len(self._values) < 2:
            return float("inf")
        best, second = np.partition(self._values, 1)[:2]
        return float(second - best)

    def best_path(self) -> list[tuple[int, int]]:
        """(frame_index, node) of the currently best path over the undecided frames, oldest first."""
        if not self._window:
            return []
        return [(f.index, n) for f, n in zip(self._window, self._trace(self.best_node), strict=True)]

    def _coupling(self, unary: np.ndarray, pairwise: np.ndarray | None) -> np.ndarray:
        if unary.ndim != 1 or len(unary) == 0:
            raise ValueError(f"frame {self._count}: unary has shape {unary.shape}, expected [K] with K >= 1")
        before = 0 if self._values is None else len(self._values)
        coupling = np.zeros((before, len(unary))) if pairwise is None else np.ascontiguousarray(pairwise, np.float64)
        if coupling.shape != (before, len(unary)):
            raise ValueError(
                f"frame {self._count}: pairwise has shape {coupling.shape}, expected ({before}, {len(unary)})"
            )
        # The sum is NaN or -inf exactly when a cost is, or when +inf and -inf meet.
        if not (unary.sum() > -np.inf and coupling.sum() > -np.inf):
            raise ValueError(f"frame {self._count}: costs contain NaN or -inf")
        return coupling

    def _trace(self, node: int) -> list[int]:
        return _trace_back([frame.parents for frame in self._window], node)

    def _commit_agreed(self, owed: float) -> list[PathCommit]:
        """Commit up to the newest frame where all surviving nodes share one ancestor."""
        assert self._values is not None
        alive = set(np.flatnonzero(np.isfinite(self._values)).tolist())
        for position in range(len(self._window) - 1, -1, -1):
            if len(alive) == 1:
                nodes = _trace_back([self._window[i].parents for i in range(position + 1)], alive.pop())
                return self._publish(nodes, self._free_ancestors()[: position + 1], owed)
            alive = {self._window[position].parents[k] for k in alive}
        return []

    def _force(self, owed: float) -> PathCommit:
        """Commit the oldest frame to the best path's node and solve the undecided frames again."""
        assert self._values is not None
        node = self._trace(self.best_node)[0]
        free = self._free_ancestors()[:1]
        before = self._values
        values = np.full_like(self._window[0].values, np.inf)
        values[node] = self._window[0].values[node]
        updated = [values]
        for position in range(1, len(self._window)):
            frame = self._window[position]
            values, parents = _relax(values, frame.pairwise, frame.unary)
            values -= frame.shift
            frame.parents = parents.tolist()
            updated.append(values)
        rise = 0.0
        if len(updated) == 1:
            self._before_forcing = before
        else:
            rise = _largest_rise(before, values)
        # The margin compares with what the decision gave up, hence before the new values move in.
        commit = self._publish([node], free, owed + rise, forced=True)[0]
        for frame, frame_values in zip(self._window, updated[1:], strict=True):
            frame.values = frame_values
        self._values = values
        return commit

    def _publish(
        self, nodes: list[int], free: list[set[int]], loss_bound: float, forced: bool = False
    ) -> list[PathCommit]:
        """Take the oldest len(nodes) frames out of the window; the first commit carries the bound."""
        margins = self._margins(nodes)
        commits = []
        for node, ancestors, margin in zip(nodes, free, margins, strict=True):
            exact = ancestors == {node} and loss_bound == 0.0 and not forced
            commits.append(PathCommit(self._window.popleft().index, node, exact, loss_bound, margin))
            loss_bound = 0.0
        return commits

    def _free_ancestors(self) -> list[set[int]]:
        """Per undecided frame, the nodes on which never-forced paths to the newest frame still depend."""
        alive = set(np.flatnonzero(np.isfinite(self._free_values)).tolist())
        out = []
        for frame in reversed(self._window):
            out.append(alive)
            alive = {frame.free_parents[k] for k in alive}
        return out[::-1]

    def _margins(self, nodes: list[int]) -> list[float]:
        """What each of the oldest frames' nodes wins over the best path through another node there."""
        later = np.zeros(len(self._window[-1].unary))
        margins = []
        for position in range(len(self._window) - 1, -1, -1):
            frame = self._window[position]
            if position < len(nodes):
                through = frame.values + later
                chosen = through[nodes[position]]
                through[nodes[position]] = np.inf
                margins.append(max(0.0, float(through.min() - chosen)))
            if position:
                later = _cost_to_end(frame.pairwise, frame.unary, later)
        return margins[::-1]


def _largest_rise(before: np.ndarray, after: np.ndarray) -> float:
    """max over reachable nodes of after - before, at least 0."""
    reachable = np.isfinite(before)
    return max(0.0, float((after[reachable] - before[reachable]).max()))


def _trace_back(parents: Sequence[list[int]], node: int) -> list[int]:
    """Nodes of the frames whose predecessors are given, ending at `node`, oldest first."""
    nodes = [node]
    for position in range(len(parents) - 1, 0, -1):
        nodes.append(parents[position][nodes[-1]])
    return nodes[::-1]


def offline_path(unaries: Sequence[np.ndarray], pairwises: Sequence[np.ndarray | None]) -> tuple[list[int], float]:
    """The optimum over a whole video that is already there (Eq. 2, second stage).

    Args:
        unaries: float [K_t] per frame.
        pairwises: either one entry per frame, the first one ignored, or one per transition; None where
            nothing couples two frames.

    Returns:
        The node of each frame and the total cost.

    Raises:
        ValueError: lengths that do not fit.
    """
    if not unaries:
        return [], 0.0
    couplings = list(pairwises) if len(pairwises) == len(unaries) else [None, *pairwises]
    if len(couplings) != len(unaries):
        raise ValueError(f"{len(unaries)} frames need {len(unaries) - 1} transitions, got {len(pairwises)}")
    values = np.asarray(unaries[0], np.float64)
    parents: list[list[int]] = [[]]
    for unary, pairwise in zip(unaries[1:], couplings[1:], strict=True):
        costs = np.ascontiguousarray(unary, np.float64)
        coupling = np.zeros((len(values), len(costs)))
        if pairwise is not None:
            coupling = np.ascontiguousarray(pairwise, np.float64)
        values, best = _relax(values, coupling, costs)
        parents.append(best.tolist())
    node = int(values.argmin())
    return _trace_back(parents, node), float(values[node])
