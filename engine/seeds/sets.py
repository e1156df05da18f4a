"""Fore- and background sets of a frame and the soft segmentation they give (Sec. 3.4, Eq. 11 to 15)."""

from dataclasses import dataclass

import numpy as np

from engine.seeds.regions import MergeTree, bottleneck_distances, region_shares
from engine.seeds.similarity import nearest_distances, similarity


@dataclass(frozen=True, slots=True)
class SeedSets:
    """Which seeds stand for the foreground and which for the background.

    Attributes:
        foreground: bool [S]; holds at least the initial seed.
        background: bool [S]; disjoint from `foreground`.
    """

    foreground: np.ndarray
    background: np.ndarray


def initial_foreground(tree: MergeTree, seed: int, background: np.ndarray) -> np.ndarray:
    """Pixels closer to a seed than to any background seed, by bottleneck distance: bool [P] (Eq. 11).

    Args:
        tree: of the frame.
        seed: row-major pixel of the foreground seed.
        background: int64 row-major pixels of the background seeds.
    """
    own = bottleneck_distances(tree, np.array([seed], np.int64))
    inside: np.ndarray = own < bottleneck_distances(tree, background)
    return inside


def background_seeds(
    objectness: np.ndarray, motion: np.ndarray, moving: bool, max_objectness: float, max_motion: float
) -> np.ndarray:
    """Seeds with O <= O_BG or M <= M_BG: bool [S] (Eq. 12).

    In a frame where nothing moves M is 0 for all and says nothing; only O counts there (ours).
    """
    out = objectness <= max_objectness
    if moving:
        out |= motion <= max_motion
    return out


def seed_sets(
    labels: np.ndarray, initial: np.ndarray, seed: int, background: np.ndarray, region_share: float
) -> SeedSets:
    """The sets of a frame (Sec. 3.4).

    A region mostly inside the initial foreground adds its seed, unless Eq. 12 calls it background; the
    initial seed always belongs to the foreground.

    Args:
        labels: int64 [P], region of each pixel.
        initial: bool [P], the initial foreground.
        seed: index of the initial foreground seed.
        background: bool [S], Eq. 12.
        region_share: alpha.
    """
    shares = region_shares(labels, initial[None], len(background))[0]
    foreground = (shares > region_share) & ~background
    foreground[seed] = True
    return SeedSets(foreground, background & ~foreground)


def soft_foreground(embedding: np.ndarray, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """P_FG = R_FG / (R_FG + R_BG), R_x the largest similarity to a row of set x (Eq. 13, 14, 15).

    Args:
        embedding: float32 [E, P].
        foreground, background: float32 [n, E], embeddings of the two sets; n may be 0.

    Returns:
        float32 [P] in [0, 1]; 1/2 where a pixel is equally far from both.
    """
    probability, _ = soft_foreground_with_similarity(embedding, foreground, background)
    return probability


def soft_foreground_with_similarity(
    embedding: np.ndarray, foreground: np.ndarray, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 15 and max(R_FG, R_BG), how well the sets know each pixel; both float32 [P]."""
    near_foreground = similarity(nearest_distances(embedding, foreground))
    near_background = similarity(nearest_distances(embedding, background))
    probability: np.ndarray = near_foreground / (near_foreground + near_background)
    return probability, np.maximum(near_foreground, near_background)
