"""Geodesic Voronoi regions and bottleneck distances against Dijkstra with a heap."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.regions import bottleneck_distances, geodesic_regions, merge_tree, region_shares
from engine.seeds.sampling import EmbeddingGraph, embedding_graph


def slow_distances(graph: EmbeddingGraph, source: int, bottleneck: bool) -> np.ndarray:
    h, w = graph.right.shape
    out = np.full(h * w, np.inf)
    out[source] = 0.0
    heap = [(0.0, source)]
    while heap:
        d, p = heapq.heappop(heap)
        if d > out[p]:
            continue
        y, x = divmod(p, w)
        around = []
        if x + 1 < w:
            around.append((p + 1, graph.right[y, x]))
        if x:
            around.append((p - 1, graph.right[y, x - 1]))
        if y + 1 < h:
            around.append((p + w, graph.down[y, x]))
        if y:
            around.append((p - w, graph.down[y - 1, x]))
        for q, length in around:
            reached = max(d, float(length)) if bottleneck else d + float(length)
            if reached < out[q]:
                out[q] = reached
                heapq.heappush(heap, (reached, q))
    return out


def graph_of(seed: int, h: int, w: int, spread: float = 1.0) -> EmbeddingGraph:
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(3, h, w)) * np.exp(spread * rng.normal(size=(1, h, w)))
    return embedding_graph(np.round(f, 2).astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.floats(0, 4), st.integers(0, 9999))
def test_regions_are_those_of_the_shortest_paths(h: int, w: int, n: int, spread: float, seed: int) -> None:
    graph = graph_of(seed, h, w, spread)
    seeds = np.random.default_rng(seed).integers(0, h * w, n)
    labels, distances = geodesic_regions(graph, seeds)
    slow = np.array([slow_distances(graph, s, False) for s in seeds])
    assert distances == pytest.approx(slow.min(axis=0), rel=1e-4, abs=1e-4)
    assert slow[labels, np.arange(h * w)] == pytest.approx(slow.min(axis=0), rel=1e-4, abs=1e-4)
    for i, s in enumerate(seeds):
        assert seeds[labels[s]] == s
        assert labels[s] <= i


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 9999))
def test_bottleneck_is_the_smallest_largest_edge_of_any_path(h: int, w: int, n: int, seed: int) -> None:
    graph = graph_of(seed, h, w)
    tree = merge_tree(graph)
    sources = np.random.default_rng(seed).integers(0, h * w, n)
    slow = np.array([slow_distances(graph, s, True) for s in sources])
    assert bottleneck_distances(tree, sources) == pytest.approx(slow.min(axis=0), rel=1e-6)
    assert np.isinf(bottleneck_distances(tree, np.empty(0, np.int64))).all()


def test_one_enormous_edge_does_not_need_a_million_buckets() -> None:
    f = np.zeros((1, 4, 40), np.float32)
    f[0] += np.arange(40, dtype=np.float32) * 1e-3
    f[:, :, 20:] += 1e6
    graph = embedding_graph(f)
    labels, distances = geodesic_regions(graph, np.array([0]))
    assert distances == pytest.approx(slow_distances(graph, 0, False), rel=1e-4)
    assert not labels.any()


def test_a_flat_embedding_is_one_region_at_no_distance() -> None:
    graph = embedding_graph(np.ones((2, 5, 7), np.float32))
    labels, distances = geodesic_regions(graph, np.array([3, 20]))
    assert not distances.any()
    assert set(labels.tolist()) == {0, 1}
    assert not bottleneck_distances(merge_tree(graph), np.array([3])).any()


def test_shares_count_pixels_and_empty_regions_have_none() -> None:
    rng = np.random.default_rng(5)
    labels, masks = rng.integers(0, 4, 60), rng.random((3, 6, 10)) < 0.4
    shares = region_shares(labels, masks, 5)
    for m in range(3):
        for s in range(4):
            assert shares[m, s] == pytest.approx(masks[m].ravel()[labels == s].mean())
        assert shares[m, 4] == 0
