"""Initial foreground, sets and soft segmentation (Eq. 11 to 15) against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.regions import geodesic_regions, merge_tree
from engine.seeds.sampling import embedding_graph
from engine.seeds.sets import (
    background_seeds,
    initial_foreground,
    seed_sets,
    soft_foreground,
    soft_foreground_with_similarity,
)
from tests.engine.seeds.test_regions import graph_of, slow_distances


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 8))
def test_initial_foreground_is_what_is_closer_to_its_seed_than_to_any_background_seed(seed: int, n: int) -> None:
    graph = graph_of(seed, 8, 9)
    pixels = np.random.default_rng(seed).permutation(72)[:n]
    own = slow_distances(graph, pixels[0], True)
    others = np.min([slow_distances(graph, p, True) for p in pixels[1:]], axis=0)
    assert (initial_foreground(merge_tree(graph), int(pixels[0]), pixels[1:]) == (own < others)).all()


def test_background_is_what_is_no_object_or_does_not_move() -> None:
    objectness = np.array([0.1, 0.3, 0.9, 0.9])
    motion = np.array([1.0, 0.5, 0.01, 0.5])
    assert background_seeds(objectness, motion, True, 0.3, 0.01).tolist() == [True, True, True, False]
    # Where nothing moves a motion of 0 tells nothing.
    assert background_seeds(objectness, motion * 0, False, 0.3, 0.01).tolist() == [True, True, False, False]


def test_a_seed_joins_when_more_than_alpha_of_its_region_lies_inside() -> None:
    labels = np.repeat(np.arange(4), 10)
    initial = np.zeros(40, bool)
    initial[0:3] = True  # the seed itself, though little of its region
    initial[10:15] = True  # exactly one half: not more
    initial[20:26] = True
    initial[30:40] = True  # all of it, but Eq. 12 says background
    sets = seed_sets(labels, initial, 0, np.array([False, False, False, True]), 0.5)
    assert sets.foreground.tolist() == [True, False, True, False]
    assert sets.background.tolist() == [False, False, False, True]


def test_the_initial_seed_is_never_background() -> None:
    sets = seed_sets(np.zeros(4, np.int64), np.ones(4, bool), 0, np.array([True]), 0.5)
    assert sets.foreground.tolist() == [True]
    assert sets.background.tolist() == [False]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 9999))
def test_soft_foreground_is_the_share_of_the_most_similar_seeds(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(3, 50)).astype(np.float32)
    sets = [rng.normal(size=(k, 3)).astype(np.float32) for k in (n, m)]
    nothing = 2.0 / (1.0 + np.exp(50.0))
    near = [
        np.array([max([nothing, *(2 / (1 + np.exp(((f[:, p] - s) ** 2).sum())) for s in rows)]) for p in range(50)])
        for rows in sets
    ]
    probability, known = soft_foreground_with_similarity(f, *sets)
    assert probability == pytest.approx(near[0] / (near[0] + near[1]), abs=1e-4)
    assert known == pytest.approx(np.maximum(*near), abs=1e-4)
    assert (soft_foreground(f, *sets) == probability).all()


def test_a_planted_object_is_segmented_from_one_seed() -> None:
    f = np.zeros((2, 20, 30), np.float32)
    f[0, 5:15, 8:20] = 3.0
    f += np.random.default_rng(0).normal(size=f.shape).astype(np.float32) * 0.05
    graph = embedding_graph(f)
    inside = np.zeros((20, 30), bool)
    inside[5:15, 8:20] = True
    mask = initial_foreground(merge_tree(graph), 10 * 30 + 12, np.array([0, 599]))
    assert (mask.reshape(20, 30) == inside).all()
    labels, _ = geodesic_regions(graph, np.array([10 * 30 + 12, 0]))
    assert ((labels == 0).reshape(20, 30) == inside).all()
