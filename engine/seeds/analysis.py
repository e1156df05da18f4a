"""Everything the seeds say about one frame on its own: from embedding, background map and flow to P_FG."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.percepts import Percepts
from engine.seeds.config import SeedsConfig
from engine.seeds.regions import MergeTree, geodesic_regions, merge_tree
from engine.seeds.saliency import lowest_objectness, motion_saliency, region_means
from engine.seeds.sampling import candidate_points, diverse_seeds, edge_map, embedding_graph
from engine.seeds.sets import SeedSets, background_seeds, initial_foreground, seed_sets, soft_foreground
from engine.seeds.tracks import SeedTracks

_FLAT = 1e-3
"""Standard deviation of the embedding below which a frame shows nothing to tell apart."""


@dataclass(frozen=True)
class Seen:
    """The seeds of one frame.

    Attributes:
        pixels: int64 [S], row-major seeds, most diverse first.
        embeddings: float32 [S, E].
        labels: int64 [P], region of each pixel.
        objectness: float32 [S], O (Eq. 3).
        motion: float32 [S], M (Eq. 7).
        moving: whether anything moves against the background.
        tree: merges of the embedding graph.
        sets: fore- and background seeds.
        flat: float32 [E, P], the embedding.
    """

    pixels: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray
    objectness: np.ndarray
    motion: np.ndarray
    moving: bool
    tree: MergeTree
    sets: SeedSets
    flat: np.ndarray

    @cached_property
    def salient(self) -> np.ndarray:
        """P_FG by this frame's sets, float32 [P] (Eq. 15); most frames never need it."""
        return soft_foreground(self.flat, self.embeddings[self.sets.foreground], self.embeddings[self.sets.background])

    def mean_salient(self, masks: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Mean P_FG inside some masks, computed there only.

        Args:
            masks: bool [M, h, w].
            asked: bool [M].

        Returns:
            float64 [M], 0 for masks not asked for and for those without pixels.
        """
        rows = masks.reshape(len(masks), -1)
        pixels = np.flatnonzero(rows[asked].any(axis=0))
        known = soft_foreground(
            self.flat[:, pixels], self.embeddings[self.sets.foreground], self.embeddings[self.sets.background]
        )
        inside = rows[:, pixels] & asked[:, None]
        mean: np.ndarray = (inside @ known.astype(np.float64)) / np.maximum(inside.sum(axis=1), 1)
        return mean


def usable(embedding: np.ndarray | None) -> bool:
    """Whether an embedding float32 [E, h, w] can tell anything apart: finite, and not the same everywhere."""
    if embedding is None or not embedding.size:
        return False
    # NaN and infinity anywhere leave their mark on the sum; the spread needs no more than a sample.
    sample = embedding[:, ::2, ::2].reshape(len(embedding), -1)
    return bool(np.isfinite(embedding.sum())) and float(sample.std(axis=1).max()) > _FLAT


def look(percepts: Percepts, tracks: SeedTracks, config: SeedsConfig) -> Seen:
    """Seeds, regions, saliency, tracks and sets of a frame whose embedding is usable (Eq. 3 to 15)."""
    assert percepts.embedding is not None
    channels, h, w = percepts.embedding.shape
    embedding = np.ascontiguousarray(percepts.embedding, np.float32)
    flat = embedding.reshape(channels, h * w)
    graph = embedding_graph(embedding)
    points = candidate_points(edge_map(graph), config.window(h))
    objectness = (1.0 - np.nan_to_num(percepts.background, nan=1.0)).astype(np.float32).ravel()
    candidates = np.ascontiguousarray(flat[:, points].T)
    kept = diverse_seeds(candidates, objectness[points], config.seeds)
    pixels, embeddings, seen = points[kept], candidates[kept], objectness[points[kept]]
    labels, _ = geodesic_regions(graph, pixels)
    modelled = lowest_objectness(seen, config.background_share)
    flow = percepts.flow if percepts.residual is None else percepts.residual
    motion, moving = np.zeros(len(pixels), np.float32), False
    if flow is not None:
        means = region_means(labels, np.nan_to_num(flow).reshape(2, h * w), len(pixels))
        saliency = motion_saliency(means, modelled, config.min_motion_px)
        motion, moving = saliency.motion, saliency.moving
    best = tracks.step(embeddings, seen * motion)
    tree = merge_tree(graph)
    initial = initial_foreground(tree, int(pixels[best]), pixels[modelled[modelled != best]])
    background = background_seeds(seen, motion, moving, config.background_objectness, config.background_motion)
    if not moving and seen[best] <= config.background_objectness:
        # Nothing moves and nothing looks like an object: there is no foreground to grow.
        initial[:] = False
    sets = seed_sets(labels, initial, best, background, config.region_share)
    return Seen(pixels, embeddings, labels, seen, motion, moving, tree, sets, flat)
