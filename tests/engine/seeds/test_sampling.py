"""Edge map, candidates and diverse seeds (Eq. 4, 5, 6) against slow definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.config import SeedsConfig
from engine.seeds.sampling import candidate_points, diverse_seeds, edge_map, embedding_graph
from engine.seeds.similarity import similarity


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 / (1.0 + float(np.exp(min(((a - b) ** 2).sum(), 50.0))))


def smooth(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_edge_map_is_the_largest_dissimilarity_to_the_four_neighbours(h: int, w: int, seed: int) -> None:
    f = smooth(seed, (3, h, w))
    expected = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < h and 0 <= u < w:
                    expected[y, x] = max(expected[y, x], 1.0 - alike(f[:, y, x], f[:, v, u]))
    assert edge_map(embedding_graph(f)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_candidates_are_the_minima_of_their_window(n: int) -> None:
    edges = np.random.default_rng(n).random((17, 23)).astype(np.float32)
    edges[4:9, 4:9] = 0.0  # a plateau: every pixel of it is a minimum
    r = n // 2
    expected = [
        y * 23 + x
        for y in range(17)
        for x in range(23)
        if edges[y, x] == edges[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].min()
    ]
    assert candidate_points(edges, n).tolist() == expected


def test_the_window_grows_with_the_grid() -> None:
    config = SeedsConfig()
    assert [config.window(rows) for rows in (16, 64, 480)] == [5, 5, 9]
    assert SeedsConfig(window_px=7).window(480) == 7


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 99))
def test_each_seed_is_the_least_similar_to_its_predecessors(n: int, count: int, seed: int) -> None:
    f, objectness = smooth(seed, (n, 4)), np.random.default_rng(seed).random(n)
    chosen = diverse_seeds(f, objectness, count).tolist()
    assert chosen[0] == int(np.argmax(objectness))
    assert len(chosen) == len(set(chosen)) == min(n, count)
    for k in range(1, len(chosen)):
        # Float rounding may swap two candidates that are equally far: compare what they achieve.
        worst = [max(-((f[i] - f[j]) ** 2).sum() for j in chosen[:k]) for i in range(n)]
        assert worst[chosen[k]] == pytest.approx(min(worst), rel=1e-5)


def test_copies_of_a_seed_are_no_candidates() -> None:
    f = np.repeat(smooth(0, (3, 4)), 5, axis=0)
    assert len(diverse_seeds(f, np.zeros(15), 10)) == 3
    assert len(diverse_seeds(np.zeros((50, 4), np.float32), np.zeros(50), 10)) == 1
    assert len(diverse_seeds(np.zeros((0, 4), np.float32), np.zeros(0), 10)) == 0


def test_similarity_orders_as_distances_do() -> None:
    squared = np.sort(np.random.default_rng(1).random(100).astype(np.float32) * 8)
    assert (np.diff(similarity(squared)) <= 0).all()
