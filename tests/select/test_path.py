"""The online path against the whole-video optimum: agreement, order, certificates, endless streams."""

import itertools
import time
import tracemalloc

import networkx
import numpy as np
import pytest

from engine.select.path import OnlinePath, offline_path
from engine.select.reference import paper_path


def random_sequence(rng, frames, most=6, coupling=1.0):
    """Unary and pairwise costs of both signs, K varying, now and then a frame that nothing couples."""
    counts = rng.integers(1, most + 1, size=frames)
    unaries = [rng.normal(size=k) for k in counts]
    pairwises = [None]
    for before, k in itertools.pairwise(counts):
        pairwises.append(None if rng.random() < 0.03 else coupling * rng.normal(size=(before, k)))
    if rng.random() < 0.2:  # ties
        unaries = [np.round(u) for u in unaries]
        pairwises = [p if p is None else np.round(p) for p in pairwises]
    return unaries, pairwises


def run(path, unaries, pairwises):
    commits = []
    for unary, pairwise in zip(unaries, pairwises, strict=True):
        commits += path.push(unary, pairwise)
    return commits + path.flush()


def cost_of(nodes, unaries, pairwises):
    total = sum(float(u[n]) for u, n in zip(unaries, nodes, strict=True))
    for t in range(1, len(nodes)):
        if pairwises[t] is not None:
            total += float(pairwises[t][nodes[t - 1], nodes[t]])
    return total


def test_offline_path_is_the_shortest_path_of_the_graph():
    rng = np.random.default_rng(1)
    for _ in range(60):
        unaries, pairwises = random_sequence(rng, int(rng.integers(1, 9)))
        graph = networkx.DiGraph()
        for t, unary in enumerate(unaries):
            for k, cost in enumerate(unary.tolist()):
                before = range(len(unaries[t - 1])) if t else [0]
                for j in before:
                    edge = 0.0 if pairwises[t] is None else float(pairwises[t][j, k])
                    graph.add_edge((t - 1, j), (t, k), weight=cost + edge)
        for k in range(len(unaries[-1])):
            graph.add_edge((len(unaries) - 1, k), "end", weight=0.0)
        expected = networkx.bellman_ford_path_length(graph, (-1, 0), "end")
        nodes, cost = offline_path(unaries, pairwises)
        assert cost == pytest.approx(expected)
        assert cost_of(nodes, unaries, pairwises) == pytest.approx(expected)
        assert paper_path(unaries, pairwises)[1] == pytest.approx(expected)


def test_offline_path_takes_one_coupling_per_frame_or_per_transition():
    unaries, pairwises = random_sequence(np.random.default_rng(2), 6)
    assert offline_path(unaries, pairwises) == offline_path(unaries, pairwises[1:])
    assert offline_path([], []) == ([], 0.0)
    with pytest.raises(ValueError, match="transitions"):
        offline_path(unaries, pairwises[:3])


def test_without_a_deadline_online_equals_offline():
    rng = np.random.default_rng(3)
    for _ in range(1000):
        unaries, pairwises = random_sequence(rng, int(rng.integers(1, 25)), coupling=rng.choice([0.3, 1, 3]))
        nodes, cost = offline_path(unaries, pairwises)
        commits = run(OnlinePath(None), unaries, pairwises)
        assert [c.frame_index for c in commits] == list(range(len(unaries)))
        assert [c.node for c in commits] == nodes
        assert all(c.exact and c.loss_bound == 0.0 and c.margin >= 0.0 for c in commits)
        assert cost_of(nodes, unaries, pairwises) == pytest.approx(cost)


def test_forced_decisions_cost_at_most_what_they_publish():
    rng = np.random.default_rng(4)
    forced = suboptimal = 0
    for case in range(1320):
        lag = case % 11
        unaries, pairwises = random_sequence(rng, int(rng.integers(1, 25)), coupling=rng.choice([0.3, 1, 3]))
        optimum_nodes, optimum = offline_path(unaries, pairwises)
        commits = run(OnlinePath(lag), unaries, pairwises)
        nodes = [c.node for c in commits]
        assert [c.frame_index for c in commits] == list(range(len(unaries)))
        assert all(0 <= n < len(u) for n, u in zip(nodes, unaries, strict=True))
        gap = cost_of(nodes, unaries, pairwises) - optimum
        bound = sum(c.loss_bound for c in commits)
        assert -1e-9 <= gap <= bound + 1e-9
        assert np.isfinite(bound)
        for commit, best in zip(commits, optimum_nodes, strict=True):
            if commit.exact:
                assert commit.loss_bound == 0.0
                assert commit.node == best
        if all(c.exact for c in commits):
            assert gap == pytest.approx(0.0, abs=1e-9)
        forced += any(not c.exact for c in commits)
        suboptimal += gap > 1e-9
    assert forced > 300
    assert suboptimal > 50


def test_a_decision_never_waits_longer_than_the_deadline():
    rng = np.random.default_rng(5)
    for lag in range(6):
        path = OnlinePath(lag)
        unaries, pairwises = random_sequence(rng, 200, coupling=5.0)
        decided = 0
        for t in range(200):
            decided += len(path.push(unaries[t], pairwises[t]))
            assert decided >= t + 1 - lag


def test_longer_waits_come_closer_to_the_optimum():
    rng = np.random.default_rng(6)
    gaps = np.zeros(4)
    for _ in range(40):
        unaries, pairwises = random_sequence(rng, 60, coupling=1.0)
        _, optimum = offline_path(unaries, pairwises)
        for i, lag in enumerate((0, 1, 3, 8)):
            nodes = [c.node for c in run(OnlinePath(lag), unaries, pairwises)]
            gaps[i] += cost_of(nodes, unaries, pairwises) - optimum
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] >= -1e-9


def test_exactness_returns_after_a_forced_decision():
    """Two interpretations that cost the same force a guess; a frame that settles all starts afresh."""
    stay = np.array([[0.0, 9.0], [9.0, 0.0]])
    path = OnlinePath(2)
    commits = path.push(np.zeros(2), None)
    for _ in range(6):
        commits += path.push(np.zeros(2), stay)
    assert not any(c.exact for c in commits)
    assert commits[0].loss_bound > 0.0
    commits = path.push(np.array([-100.0, 0.0]), None)
    later = path.push(np.zeros(2), stay)
    assert (commits + later)[-1].exact
    assert (commits + later)[-1].node == 0


def test_the_margin_is_what_the_other_choice_would_have_cost():
    rng = np.random.default_rng(7)
    for _ in range(50):
        unaries, pairwises = random_sequence(rng, 5, most=4)
        path = OnlinePath(None)
        for unary, pairwise in zip(unaries[:-1], pairwises[:-1], strict=True):
            path.push(unary, pairwise)
        undecided = [f for f, _ in path.best_path()]
        path.push(unaries[-1], pairwises[-1])
        costs = {
            nodes: cost_of(nodes, unaries, pairwises) for nodes in itertools.product(*(range(len(u)) for u in unaries))
        }
        best = min(costs.values())
        others = [c for nodes, c in costs.items() if nodes[-1] != path.best_node]
        assert path.margin == pytest.approx(min(others, default=np.inf) - best)
        # Frames still open at the end are judged with everything that was seen.
        for commit in path.flush():
            if commit.frame_index in undecided:
                others = [c for nodes, c in costs.items() if nodes[commit.frame_index] != commit.node]
                assert commit.margin == pytest.approx(min(others, default=np.inf) - best, abs=1e-9)


def test_the_provisional_path_is_what_a_flush_would_decide():
    rng = np.random.default_rng(8)
    unaries, pairwises = random_sequence(rng, 30)
    for end in range(1, 30):
        path = OnlinePath(4)
        for unary, pairwise in zip(unaries[:end], pairwises[:end], strict=True):
            path.push(unary, pairwise)
        seen, best = path.best_path(), path.best_node
        assert [(c.frame_index, c.node) for c in path.flush()] == seen
        if seen:
            assert seen[-1] == (end - 1, best)


def test_a_flush_ends_a_path_and_keeps_counting_a_reset_starts_at_zero():
    path = OnlinePath(5)
    path.push(np.array([0.0, 1.0]), None)
    assert [tuple(c) for c in path.flush()] == [(0, 0, True, 0.0)]
    assert path.flush() == []
    with pytest.raises(ValueError, match="pairwise"):
        path.push(np.zeros(2), np.zeros((2, 2)))
    assert path.push(np.zeros(1), None)[0].frame_index == 1
    path.reset()
    assert path.push(np.zeros(1), None)[0].frame_index == 0


def test_forbidden_nodes_and_transitions_are_never_taken():
    path = OnlinePath(1)
    commits = path.push(np.array([np.inf, 3.0]), None)
    commits += path.push(np.array([-5.0, 0.0]), np.array([[0.0, 0.0], [np.inf, 0.0]]))
    commits += path.flush()
    assert [c.node for c in commits] == [1, 1]


@pytest.mark.parametrize(
    ("unary", "pairwise"),
    [
        (np.zeros(0), np.zeros((2, 0))),
        (np.zeros((2, 2)), None),
        (np.array([np.nan, 0.0]), None),
        (np.array([-np.inf, 0.0]), None),
        (np.array([np.inf, np.inf]), None),
        (np.zeros(2), np.full((2, 2), np.nan)),
        (np.zeros(2), np.zeros((3, 2))),
    ],
)
def test_unusable_costs_are_refused(unary, pairwise):
    path = OnlinePath(3)
    path.push(np.zeros(2), None)
    with pytest.raises(ValueError, match="frame 1"):
        path.push(unary, pairwise)


def test_an_endless_stream_costs_the_same_at_its_end():
    rng = np.random.default_rng(9)
    unaries = rng.normal(size=(997, 5))
    pairwises = rng.normal(size=(991, 5, 5))
    path = OnlinePath(5)
    seconds, commits = [], 0
    for block in range(100):
        start = time.thread_time()
        for t in range(1000 * block, 1000 * (block + 1)):
            commits += len(path.push(unaries[t % 997], pairwises[t % 991] if t else None))
        seconds.append(time.thread_time() - start)
    assert commits + len(path.flush()) == 100_000
    assert np.median(seconds[75:]) < 3 * np.median(seconds[5:30])  # a busy machine changes its speed


def test_an_endless_stream_holds_no_memory():
    rng = np.random.default_rng(10)
    unary, pairwise = rng.normal(size=6), rng.normal(size=(6, 6))
    path = OnlinePath(5)
    held = []
    tracemalloc.start()
    try:
        for t in range(4000):
            path.push(unary + rng.normal(size=6), pairwise if t else None)
            if t in (500, 3999):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] < held[0] + 16_384


def test_sums_that_grow_without_end_keep_small_differences():
    """Costs on a grid of 2^-10 around 2^34: after 20,000 frames plain sums could not tell them apart."""
    rng = np.random.default_rng(11)
    unaries = list(rng.integers(0, 1024, size=(20_000, 3)) / 1024)
    pairwises = [None, *(rng.integers(0, 1024, size=(19_999, 3, 3)) / 1024)]
    path = OnlinePath(None)
    commits = []
    for unary, pairwise in zip(unaries, pairwises, strict=True):
        commits += path.push(unary + 2.0**34, pairwise)
    commits += path.flush()
    nodes = [c.node for c in commits]
    assert cost_of(nodes, unaries, pairwises) == offline_path(unaries, pairwises)[1]
