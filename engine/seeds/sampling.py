"""Seeds of one frame: the embedding's edge map, its local minima, and a diverse subset of them (Sec. 3.2)."""

from dataclasses import dataclass

import cv2
import numpy as np

from engine.seeds.similarity import similarity
from engine.select.compiled import compiled, compiled_sum


@dataclass(frozen=True, slots=True)
class EmbeddingGraph:
    """The 4-neighbour graph of an embedding map; weights are Euclidean distances (Sec. 3.1).

    Attributes:
        right: float32 [h, w], distance of each pixel to the one on its right; the last column is 0 and unused.
        down: float32 [h, w], distance to the one below; the last row is 0 and unused.
    """

    right: np.ndarray
    down: np.ndarray


def embedding_graph(embedding: np.ndarray) -> EmbeddingGraph:
    """Graph of float32 [E, h, w]."""
    right, down = _neighbour_distances(np.ascontiguousarray(embedding, np.float32))
    return EmbeddingGraph(np.sqrt(right), np.sqrt(down))


@compiled_sum
def _neighbour_distances(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    channels, h, w = embedding.shape
    right = np.zeros((h, w), np.float32)
    down = np.zeros((h, w), np.float32)
    for y in range(h):
        for e in range(channels):
            for x in range(w - 1):
                step = embedding[e, y, x + 1] - embedding[e, y, x]
                right[y, x] += step * step
            if y + 1 < h:
                for x in range(w):
                    step = embedding[e, y + 1, x] - embedding[e, y, x]
                    down[y, x] += step * step
    return right, down


def edge_map(graph: EmbeddingGraph) -> np.ndarray:
    """c(p) = max over the 4 neighbours of 1 - R: float32 [h, w] in [0, 1) (Eq. 4)."""
    farthest = np.maximum(graph.right, graph.down)
    farthest[:, 1:] = np.maximum(farthest[:, 1:], graph.right[:, :-1])
    farthest[1:] = np.maximum(farthest[1:], graph.down[:-1])
    out: np.ndarray = np.float32(1.0) - similarity(farthest * farthest)
    return out


def candidate_points(edges: np.ndarray, window_px: int) -> np.ndarray:
    """Row-major indices int64 of the pixels that are minimal in their n x n window (Eq. 5).

    Args:
        edges: float32 [h, w].
        window_px: n, odd; the window is cut at the border.
    """
    lowest = cv2.erode(edges, np.ones((window_px, window_px), np.uint8))
    return np.flatnonzero(edges == lowest.reshape(edges.shape))


def diverse_seeds(embeddings: np.ndarray, objectness: np.ndarray, count: int) -> np.ndarray:
    """Indices int64 of diverse candidates, the most object-like first (Eq. 6).

    Each next one is least similar to its most similar predecessor. Fewer than `count` come back when the
    candidates run out; a copy of a chosen embedding is no candidate, as it would represent nothing new.

    Args:
        embeddings: float32 [C, E].
        objectness: float32 [C], O = 1 - background (Eq. 3).
        count: N_S.
    """
    if not len(embeddings):
        return np.empty(0, np.int64)
    return _diverse(
        np.ascontiguousarray(embeddings, np.float32).T.copy(), int(np.argmax(objectness)), min(count, len(embeddings))
    )


@compiled
def _diverse(columns: np.ndarray, first: int, count: int) -> np.ndarray:
    channels, n = columns.shape
    nearest = np.full(n, np.inf, np.float32)
    distance = np.empty(n, np.float32)
    chosen = np.empty(count, np.int64)
    newest = first
    for k in range(count):
        chosen[k] = newest
        distance[:] = np.float32(0.0)
        for e in range(channels):
            value = columns[e, newest]
            for i in range(n):
                step = columns[e, i] - value
                distance[i] += step * step
        best = np.float32(0.0)
        following = -1
        for i in range(n):
            nearest[i] = min(nearest[i], distance[i])
            if nearest[i] > best:
                best = nearest[i]
                following = i
        if following < 0:
            return chosen[: k + 1].copy()
        newest = following
    return chosen
