"""Regions around seeds: the geodesic Voronoi diagram and the bottleneck distance (Sec. 3.2 and 3.4).

Regions grow from a bucket queue in linear time for bounded weights. The bottleneck distance comes from the
order in which a minimum spanning tree merges components: two pixels are first connected at exactly the
largest edge of their best path.
"""

from dataclasses import dataclass

import numpy as np

from engine.seeds.sampling import EmbeddingGraph
from engine.select.compiled import compiled

_MOST_BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class MergeTree:
    """How the components of an embedding graph merge, shortest edges first.

    Nodes 0 ... P - 1 are the pixels, later ones are components in the order they arose; the last holds all.

    Attributes:
        parent: int64 [2 P - 1], component each node became part of, -1 for the last.
        weight: float32 [2 P - 1], length of the edge that made the component; 0 for pixels.
    """

    parent: np.ndarray
    weight: np.ndarray


def merge_tree(graph: EmbeddingGraph) -> MergeTree:
    """Minimum spanning tree of a graph by union-find, as the tree of its merges."""
    h, w = graph.right.shape
    weights = np.concatenate([graph.right[:, : w - 1].ravel(), graph.down[: h - 1].ravel()])
    # Distances are not negative: their bit patterns sort as they do.
    parent, weight = _merge(_radix_order(weights.view(np.int32)), weights, h, w)
    return MergeTree(parent, weight)


@compiled
def _radix_order(keys: np.ndarray) -> np.ndarray:
    """Stable sorting permutation of int32 keys that are not negative, eleven bits at a time."""
    n = len(keys)
    order = np.arange(n)
    moved = np.empty(n, np.int64)
    for shift in (0, 11, 22):
        starts = np.zeros(2049, np.int64)
        for i in range(n):
            starts[((keys[i] >> shift) & 2047) + 1] += 1
        for d in range(2048):
            starts[d + 1] += starts[d]
        for i in range(n):
            digit = (keys[order[i]] >> shift) & 2047
            moved[starts[digit]] = order[i]
            starts[digit] += 1
        order, moved = moved, order
    return order


@compiled
def _merge(order: np.ndarray, weights: np.ndarray, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = h * w
    parent = np.full(2 * pixels - 1, -1, np.int64)
    weight = np.zeros(2 * pixels - 1, np.float32)
    # Pixels point to a pixel that stands for their component, and that one knows the component's node.
    leader = np.arange(pixels)
    size = np.ones(pixels, np.int64)
    node = np.arange(pixels)
    made = pixels
    across = h * (w - 1)
    for i in range(len(order)):
        edge = order[i]
        if edge < across:
            a = edge + edge // (w - 1)
            b = a + 1
        else:
            a = edge - across
            b = a + w
        while leader[a] != a:
            leader[a] = leader[leader[a]]
            a = leader[a]
        while leader[b] != b:
            leader[b] = leader[leader[b]]
            b = leader[b]
        if a == b:
            continue
        if size[a] < size[b]:
            a, b = b, a
        leader[b] = a
        size[a] += size[b]
        parent[node[a]] = made
        parent[node[b]] = made
        weight[made] = weights[edge]
        node[a] = made
        made += 1
        if made == 2 * pixels - 1:
            break
    return parent, weight


def bottleneck_distances(tree: MergeTree, sources: np.ndarray) -> np.ndarray:
    """d(p, S): the largest edge on the best path from each pixel to its nearest source (Sec. 3.4).

    Args:
        tree: of the frame.
        sources: int64 [n] row-major pixels; n may be 0.

    Returns:
        float32 [P]; infinite without sources.
    """
    return _bottleneck(tree.parent, tree.weight, np.asarray(sources, np.int64))


@compiled
def _bottleneck(parent: np.ndarray, weight: np.ndarray, sources: np.ndarray) -> np.ndarray:
    nodes = len(parent)
    holds = np.zeros(nodes, np.bool_)
    for s in sources:
        holds[s] = True
    for i in range(nodes - 1):
        if holds[i]:
            holds[parent[i]] = True
    out = np.empty(nodes, np.float32)
    out[nodes - 1] = np.float32(0.0) if holds[nodes - 1] else np.float32(np.inf)
    for i in range(nodes - 2, -1, -1):
        up = parent[i]
        if holds[i]:
            out[i] = np.float32(0.0)
        elif holds[up]:
            out[i] = weight[up]
        else:
            out[i] = out[up]
    return out[: (nodes + 1) // 2].copy()


def geodesic_regions(graph: EmbeddingGraph, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which seed each pixel is closest to along the graph (Sec. 3.3).

    Args:
        graph: weights without NaN.
        seeds: int64 [S] row-major pixels, S >= 1; of equal seeds the first owns the region.

    Returns:
        labels int64 [P], index into `seeds`, and distances float32 [P], sums of edge weights.
    """
    longest = float(max(graph.right.max(), graph.down.max()))
    mean = float(graph.right.mean() + graph.down.mean()) / 2
    # Any width gives the exact answer; about the mean edge there are few buckets and few corrections.
    width = max(mean, longest / _MOST_BUCKETS) or 1.0
    buckets = int(longest / width) + 3
    return _grow_regions(graph.right, graph.down, np.asarray(seeds, np.int64), np.float32(width), buckets)


@compiled
def _grow_regions(
    right: np.ndarray, down: np.ndarray, seeds: np.ndarray, width: np.float32, buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shortest paths with a circular bucket queue; a pixel improved within its bucket is taken again."""
    h, w = right.shape
    pixels = h * w
    distance = np.full(pixels, np.inf, np.float32)
    label = np.full(pixels, -1, np.int64)
    head = np.full(buckets, -1, np.int64)
    after = np.full(pixels, -1, np.int64)
    before = np.full(pixels, -1, np.int64)
    place = np.full(pixels, -1, np.int64)
    waiting = 0
    for s in range(len(seeds)):
        p = seeds[s]
        if label[p] < 0:
            distance[p] = np.float32(0.0)
            label[p] = s
            place[p] = 0
            after[p] = head[0]
            if head[0] >= 0:
                before[head[0]] = p
            head[0] = p
            waiting += 1
    current = 0
    while waiting > 0:
        p = head[current]
        if p < 0:
            current = current + 1 if current + 1 < buckets else 0
            continue
        head[current] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        place[p] = -1
        waiting -= 1
        y = p // w
        x = p - y * w
        for side in range(4):
            if side == 0:
                if x + 1 == w:
                    continue
                q = p + 1
                length = right[y, x]
            elif side == 1:
                if x == 0:
                    continue
                q = p - 1
                length = right[y, x - 1]
            elif side == 2:
                if y + 1 == h:
                    continue
                q = p + w
                length = down[y, x]
            else:
                if y == 0:
                    continue
                q = p - w
                length = down[y - 1, x]
            reached = distance[p] + length
            if reached >= distance[q]:
                continue
            distance[q] = reached
            label[q] = label[p]
            if place[q] >= 0:
                if before[q] >= 0:
                    after[before[q]] = after[q]
                else:
                    head[place[q]] = after[q]
                if after[q] >= 0:
                    before[after[q]] = before[q]
                waiting -= 1
            bucket = int(reached / width) % buckets
            place[q] = bucket
            before[q] = -1
            after[q] = head[bucket]
            if head[bucket] >= 0:
                before[head[bucket]] = q
            head[bucket] = q
            waiting += 1
    return label, distance


def region_shares(labels: np.ndarray, masks: np.ndarray, regions: int) -> np.ndarray:
    """Share of each region that lies inside each mask: float32 [M, S], 0 for a region without pixels.

    Args:
        labels: int64 [P].
        masks: bool [M, ...] with P pixels each.
        regions: S.
    """
    flat = np.ascontiguousarray(masks.reshape(len(masks), labels.size))
    return _shares(labels, flat, regions)


@compiled
def _shares(labels: np.ndarray, masks: np.ndarray, regions: int) -> np.ndarray:
    inside = np.zeros((len(masks), regions), np.float32)
    area = np.zeros(regions, np.float32)
    for p in range(len(labels)):
        area[labels[p]] += np.float32(1.0)
    for m in range(len(masks)):
        for p in range(len(labels)):
            if masks[m, p]:
                inside[m, labels[p]] += np.float32(1.0)
        for s in range(regions):
            inside[m, s] /= max(area[s], np.float32(1.0))
    return inside
