"""What is remembered of one object from frame to frame."""

from dataclasses import dataclass

import numpy as np

from engine.appearance import AppearanceMemory


@dataclass(frozen=True, slots=True)
class Track:
    """One remembered object; never changed in place, so that looking ahead shares it.

    Attributes:
        id: identity.
        born, seen: frame indices of the first and the latest sighting.
        sightings: frames in which it was seen.
        mask: bool [h, w], where it was last, carried along by the flow while it is missing.
        place: float [2], (y, x) of its centre in the latest sighting, working-grid pixels.
        velocity: float [2], smoothed motion of its centre per frame.
        embedding: float32 [E] smoothed mean embedding, or None without embeddings.
        memory: past looks.
        foreground: smoothed mean foreground probability in [0, 1].
        score: the detector's score in the latest sighting.
        label: pixel value in label maps.
    """

    id: int
    born: int
    seen: int
    sightings: int
    mask: np.ndarray
    place: np.ndarray
    velocity: np.ndarray
    embedding: np.ndarray | None
    memory: AppearanceMemory
    foreground: float
    score: float
    label: int
