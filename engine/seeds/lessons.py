"""Coupling of the selection to the memories: what a final frame teaches."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.seeds.analysis import Seen
from engine.seeds.config import SeedsConfig
from engine.seeds.memory import SeedMemory
from engine.seeds.regions import region_shares

_MOST_LESSONS = 16
"""Background seeds learned per frame: the seeds come most diverse first, the later ones repeat them."""


def teach(
    memory: SeedMemory,
    seen: Seen,
    masks: np.ndarray,
    sure: Mapping[int, int],
    members: Sequence[int],
    frame_index: int,
    config: SeedsConfig,
) -> None:
    """Seeds inside a final mask join its object's memory, those outside all masks the background's.

    A seed is inside when its pixel and most of its region are; it is outside when neither is and Eq. 12 calls
    it background. With `config.guard`, what looks like a known object never becomes background: an object that
    is hidden, or was missed once, must not be unlearned by its absence.

    Args:
        memory: changed in place.
        seen: seeds of the frame.
        masks: bool [N, h, w], its candidates.
        sure: object id -> candidate, for the objects to learn from.
        members: every selected candidate, learned from or not.
        frame_index: capture index.
        config: thresholds.
    """
    count = len(seen.pixels)
    chosen = masks[list(members)]
    union = np.logical_or.reduce(chosen)
    shares = region_shares(seen.labels, np.concatenate([chosen, union[None]]), count)
    at_seed = chosen.reshape(len(members), -1)[:, seen.pixels]
    row = {member: i for i, member in enumerate(members)}
    for identity, member in sure.items():
        inside = (shares[row[member]] > config.region_share) & at_seed[row[member]]
        if inside.any():
            salience = float((seen.objectness * seen.motion)[inside].mean()) if seen.moving else None
            memory.learn_object(identity, seen.embeddings[inside][: config.object_capacity], salience, frame_index)
    outside = (shares[-1] <= config.region_share) & ~at_seed.any(axis=0) & seen.sets.background
    if config.guard:
        outside &= memory.familiarity(seen.embeddings) < config.protect_similarity
    memory.background.learn(seen.embeddings[outside][:_MOST_LESSONS], frame_index)
