"""The K cheapest independent sets, against every other way to find them."""

import numpy as np
import pytest

from engine.select.combinations import best_combinations, enumerate_combinations
from engine.select.diversity import diverse_combinations
from engine.select.masks import conflicts as mask_conflicts
from engine.select.masks import pack
from engine.select.reference import (
    brute_force_combinations,
    paper_combinations,
    slow_conflicts,
    slow_distinct,
)


def costs_of(combinations):
    return [cost for cost, _ in combinations]


def is_independent(members, conflicts):
    return not conflicts[np.ix_(members, members)].any()


def assert_same(found, expected, weights, conflicts):
    """Same costs; same sets wherever a cost is unique; every set independent and worth its cost."""
    np.testing.assert_allclose(costs_of(found), costs_of(expected), atol=1e-9)
    assert len({members for _, members in found}) == len(found)
    for cost, members in found:
        assert list(members) == sorted(members)
        assert is_independent(list(members), conflicts)
        assert cost == pytest.approx(float(weights[list(members)].sum()), abs=1e-9)
    if len(np.unique(np.round(costs_of(expected), 9))) == len(expected):
        assert [m for _, m in found[:-1]] == [m for _, m in expected[:-1]]


def test_agrees_with_brute_force_on_thousands_of_graphs(graph):
    rng = np.random.default_rng(1)
    for case in range(2200):
        n = int(rng.integers(0, 15)) if case % 8 == 0 else int(rng.integers(0, 11))
        weights, conflicts = graph(rng, n)
        k = int(rng.choice([1, 3, 10, 40]))
        expected = brute_force_combinations(weights, conflicts, k)
        assert_same(best_combinations(weights, conflicts, k), expected, weights, conflicts)


def test_agrees_with_the_papers_formulation(graph):
    rng = np.random.default_rng(2)
    for _ in range(60):
        weights, conflicts = graph(rng, int(rng.integers(1, 11)))
        expected = paper_combinations(weights, conflicts, 10)
        found = best_combinations(weights, conflicts, 10)
        np.testing.assert_allclose(costs_of(found), costs_of(expected), atol=1e-9)


def test_no_masks_leave_the_empty_set():
    assert best_combinations(np.zeros(0), np.zeros((0, 0), bool), 10) == [(0.0, ())]


def test_all_sets_come_back_when_fewer_than_k_exist():
    everything = best_combinations(np.array([1.0, -1.0, 2.0]), np.ones((3, 3), bool), 10)
    assert everything == [(-1.0, (1,)), (0.0, ()), (1.0, (0,)), (2.0, (2,))]


def test_a_set_comes_before_its_superset_of_equal_cost():
    sets = [members for _, members in best_combinations(np.array([0.0, -1.0, 0.0]), np.zeros((3, 3), bool), 3)]
    assert sets[0] == (1,)


def test_more_masks_than_bits_in_a_word(graph):
    """150 masks in components small enough to enumerate apart; lists summed by brute force."""
    rng = np.random.default_rng(3)
    n, size = 150, 10
    shuffled = rng.permutation(n)
    weights = rng.normal(size=n)
    conflicts = np.zeros((n, n), bool)
    sums = [0.0]
    for start in range(0, n, size):
        members = shuffled[start : start + size]
        own_weights, own_conflicts = graph(rng, size)
        weights[members] = own_weights
        conflicts[np.ix_(members, members)] = own_conflicts
        own = costs_of(brute_force_combinations(own_weights, own_conflicts, 20))
        sums = sorted(a + b for a in sums for b in own)[:20]
    found = best_combinations(weights, conflicts, 20)
    np.testing.assert_allclose(costs_of(found), sums, atol=1e-9)
    assert all(is_independent(list(members), conflicts) for _, members in found)


def test_one_directed_conflict_counts_both_ways_and_the_diagonal_not_at_all():
    conflicts = np.zeros((2, 2), bool)
    conflicts[0, 1] = conflicts[0, 0] = True
    assert best_combinations(np.array([-1.0, -2.0]), conflicts, 10) == [(-2.0, (1,)), (-1.0, (0,)), (0.0, ())]


@pytest.mark.parametrize(
    ("weights", "conflicts", "k"),
    [
        (np.zeros(2), np.zeros((3, 3), bool), 1),
        (np.zeros(2), np.zeros((2, 2), bool), 0),
        (np.array([0.0, np.nan]), np.zeros((2, 2), bool), 1),
    ],
)
def test_unusable_input_is_refused(weights, conflicts, k):
    with pytest.raises(ValueError, match=r"shape|must be|finite"):
        best_combinations(weights, conflicts, k)


def test_out_of_budget_there_is_an_answer_and_a_true_bound(graph):
    rng = np.random.default_rng(4)
    cut_short = 0
    for _ in range(300):
        weights, conflicts = graph(rng, int(rng.integers(1, 11)))
        k = int(rng.integers(1, 12))
        found = enumerate_combinations(weights, conflicts, k, node_budget=int(rng.integers(1, 12)))
        everything = brute_force_combinations(weights, conflicts, 1 << len(weights))
        assert found.combinations
        assert all(is_independent(list(members), conflicts) for _, members in found.combinations)
        present = {members for _, members in found.combinations}
        missing = [cost for cost, members in everything if members not in present]
        assert found.bound <= min(missing, default=np.inf) + 1e-9
        if found.exact:
            np.testing.assert_allclose(costs_of(found.combinations), costs_of(everything[:k]), atol=1e-9)
        cut_short += not found.exact
    assert cut_short > 30


def test_a_tangle_that_ran_out_of_budget_does_not_starve_the_others():
    rng = np.random.default_rng(5)
    weights = np.concatenate([rng.uniform(-1.1, -1, 40), [-0.5, -0.5, 0.3]])
    conflicts = np.zeros((43, 43), bool)
    conflicts[:40, :40] = np.triu(rng.random((40, 40)) < 0.1, 1)
    found = enumerate_combinations(weights, conflicts, 4, node_budget=60)
    assert not found.exact
    assert {40, 41} <= set(found.combinations[0][1])


def blobs(rng, n, shape=(10, 14)):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return np.array(
        [np.hypot(x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])) < rng.uniform(0.2, 4) for _ in range(n)]
    ).reshape(n, *shape)


def test_mask_conflicts_follow_the_overlap_of_the_smaller_mask():
    rng = np.random.default_rng(6)
    for tolerance in (0.0, 0.05, 0.4):
        masks = blobs(rng, 12)
        np.testing.assert_array_equal(mask_conflicts(pack(masks), tolerance), slow_conflicts(masks, tolerance))


def test_kept_combinations_differ_and_nothing_cheaper_was_left_out():
    rng = np.random.default_rng(7)
    for _ in range(60):
        masks = blobs(rng, 6)
        weights = rng.normal(size=6) - 0.3
        conflicts = slow_conflicts(masks, 0.05)
        found = diverse_combinations(weights, conflicts, pack(masks), 4, 0.8, 10_000).combinations
        expected = slow_distinct(brute_force_combinations(weights, conflicts, 64), masks, 4, 0.8)
        assert [members for _, members in found] == [members for _, members in expected]


def test_near_copies_are_kept_on_request():
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :, :9] = True
    masks[1, 0, 9] = True
    weights, conflicts = np.array([-1.0, -0.01]), np.zeros((2, 2), bool)
    strict = diverse_combinations(weights, conflicts, pack(masks), 4, 1.0, 1000)
    varied = diverse_combinations(weights, conflicts, pack(masks), 4, 0.95, 1000)
    assert [m for _, m in strict.combinations] == [(0, 1), (0,), (1,), ()]
    assert [m for _, m in varied.combinations] == [(0, 1), (1,), ()]
