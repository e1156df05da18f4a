"""What is compared of each chosen mask when identities are assigned, and with what."""

from dataclasses import dataclass

import numpy as np

from engine.appearance import looks_of
from engine.percepts import Percepts
from engine.seeds.similarity import similarity, squared_distances
from engine.select.compiled import compiled
from engine.track import Track


@dataclass(frozen=True, slots=True)
class Sighting:
    """One chosen mask of the frame being assigned, with all that is compared."""

    member: int
    mask: np.ndarray
    area: int
    place: np.ndarray
    look: np.ndarray | None
    embedding: np.ndarray | None
    foreground: float
    score: float


def sightings_of(percepts: Percepts, members: tuple[int, ...]) -> list[Sighting]:
    """What is compared of each chosen mask."""
    masks = percepts.masks[list(members)]
    if not len(masks):
        return []
    looks = looks_of(percepts.image, masks) if percepts.image is not None else None
    height, width = masks.shape[1:]
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    area = flat.sum(axis=1)
    share = flat / np.maximum(area, 1.0)[:, None]
    by_row = share.reshape(-1, height, width).sum(axis=2) @ np.arange(height)
    by_column = share.reshape(-1, height, width).sum(axis=1) @ np.arange(width)
    foreground = np.where(area > 0, 1.0 - share @ percepts.background.reshape(-1), 0.0)
    embeddings = None
    if percepts.embedding is not None:
        embeddings = share @ percepts.embedding.reshape(len(percepts.embedding), -1).T
    return [
        Sighting(
            member=member,
            # A copy: a view would keep the masks of the whole frame alive as long as the track.
            mask=masks[i].copy(),
            area=int(area[i]),
            place=np.array([by_row[i], by_column[i]]),
            look=looks[i] if looks is not None and area[i] else None,
            embedding=embeddings[i] if embeddings is not None and area[i] else None,
            foreground=float(foreground[i]),
            score=float(percepts.scores[member]),
        )
        for i, member in enumerate(members)
    ]


def embedding_similarities(sightings: list[Sighting], tracks: list[Track]) -> np.ndarray:
    """float64 [members, tracks]: R of Eq. 1 of Seeds for each pair; nan where either has no embedding."""
    out = np.full((len(sightings), len(tracks)), np.nan)
    rows = [i for i, sighting in enumerate(sightings) if sighting.embedding is not None]
    columns = [j for j, track in enumerate(tracks) if track.embedding is not None]
    if rows and columns:
        a = np.array([sightings[i].embedding for i in rows])
        b = np.array([tracks[j].embedding for j in columns])
        out[np.ix_(rows, columns)] = similarity(squared_distances(a, b))
    return out


def likeness_of(sightings: list[Sighting], tracks: list[Track], wanted: list[int]) -> np.ndarray:
    """float64 [members, tracks]: how much each mask looks like each wanted memory; nan where there is no look."""
    out = np.full((len(sightings), len(tracks)), np.nan)
    rows = [i for i, sighting in enumerate(sightings) if sighting.look is not None]
    if rows:
        looks = np.array([sightings[i].look for i in rows])
        for j in wanted:
            if len(tracks[j].memory.samples):
                out[rows, j] = tracks[j].memory.likeness(looks)
    return out


@compiled
def gathered(masks: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Masks bool [N, h, w] moved along `source` [h*w], nothing where it is -1."""
    count, height, width = masks.shape
    out = np.zeros((count, height, width), np.bool_)
    for i in range(count):
        for y in range(height):
            for x in range(width):
                s = source[y * width + x]
                if s >= 0:
                    out[i, y, x] = masks[i, s // width, s % width]
    return out
