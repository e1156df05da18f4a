"""Bounded reservoirs and per-object memories: what stays, what leaves, and what is never lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.memory import Reservoir, SeedMemory


def rows(*values: float) -> np.ndarray:
    return np.array([[v, 0.0] for v in values], np.float32)


def memory(**settings_: int) -> SeedMemory:
    values = {"channels": 2, "object_capacity": 4, "background_capacity": 6, "limit": 3} | settings_
    return SeedMemory(**values, rate=0.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 9999))
def test_a_reservoir_is_bounded_and_keeps_what_it_learned_last(batches: list[int], capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reservoir = Reservoir(capacity, 3)
    for stamp, n in enumerate(batches):
        new = rng.normal(size=(n, 3)).astype(np.float32) * 3
        reservoir.learn(new, stamp)
        assert len(reservoir) <= capacity
        assert (reservoir.rows == new[-1]).all(axis=1).any()
        assert reservoir.stamps.max() == stamp


def test_a_copy_replaces_what_it_repeats() -> None:
    reservoir = Reservoir(4, 2)
    reservoir.learn(rows(0, 5), 1)
    reservoir.learn(rows(0.01), 2)
    assert len(reservoir) == 2
    assert sorted(reservoir.stamps.tolist()) == [1, 2]


def test_of_equal_age_the_most_redundant_leaves() -> None:
    reservoir = Reservoir(3, 2)
    reservoir.learn(rows(0, 0.8, 9), 1)
    reservoir.learn(rows(-9), 1)
    kept = set(reservoir.rows[:, 0].tolist())
    assert 9.0 in kept
    assert -9.0 in kept
    assert len(kept & {0.0, np.float32(0.8)}) == 1


def test_of_equal_redundancy_the_oldest_leaves() -> None:
    reservoir = Reservoir(3, 2)
    for stamp, value in enumerate((0, 20, 40, 60)):
        reservoir.learn(rows(value), stamp)
    assert sorted(reservoir.rows[:, 0].tolist()) == [20, 40, 60]


def test_rows_that_are_not_finite_are_left_out() -> None:
    reservoir = Reservoir(3, 2)
    reservoir.learn(rows(np.nan, np.inf, 1), 0)
    assert reservoir.rows.tolist() == [[1, 0]]


def test_similarity_is_the_mean_over_rows_of_the_nearest_memory() -> None:
    store = memory()
    store.learn_object(7, rows(0, 3), 0.5, 0)
    expected = np.mean([1.0, 2 / (1 + np.exp(0.25))])
    assert store.similarity(7, rows(0, 3.5)) == pytest.approx(expected, rel=1e-5)
    assert store.similarity(7, np.array([3.0, 0.0], np.float32)) == pytest.approx(1.0)
    assert store.similarity(8, rows(0)) == 0.0
    assert store.familiarity(rows(0, 90)) == pytest.approx([1.0, 0.0], abs=1e-6)
    assert memory().familiarity(rows(0)).tolist() == [0.0]


def test_the_foreground_score_is_smoothed_and_holds_while_nothing_moves() -> None:
    store = memory()
    store.learn_object(1, rows(0), 0.8, 0)
    store.learn_object(1, rows(0), 0.0, 1)
    assert store.objects[1].foreground == pytest.approx(0.72)
    store.learn_object(1, rows(0), None, 2)
    assert store.objects[1].foreground == pytest.approx(0.72)


def test_objects_unseen_longest_leave_first_and_only_recent_ones_speak() -> None:
    store = memory()
    for stamp, identity in enumerate((1, 2, 3, 1, 4)):
        store.learn_object(identity, rows(identity * 10), None, stamp)
    assert set(store.objects) == {1, 3, 4}
    assert sorted(store.known_rows(0, 2)[:, 0].tolist()) == [10, 40]
    assert store.known_rows(4, 9)[:, 0].tolist() == [40]
    assert store.known_rows(9, 9).shape == (0, 2)
