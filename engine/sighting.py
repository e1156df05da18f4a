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


class Sightings:
    """Chosen masks of the frames that are not final yet, each measured once however often a path is walked again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Percepts, dict[int, Sighting]]] = {}

    def of(self, frame_index: int, percepts: Percepts, members: tuple[int, ...]) -> list[Sighting]:
        """What is compared of each chosen mask of a frame."""
        kept = self._known.get(frame_index)
        if kept is None or kept[0] is not percepts:
            kept = self._known[frame_index] = (percepts, {})
        known = kept[1]
        missing = tuple(member for member in members if member not in known)
        known.update(zip(missing, sightings_of(percepts, missing), strict=True))
        return [known[member] for member in members]

    def settle(self, frame_index: int) -> None:
        """Frames up to `frame_index` are final: nobody walks them again."""
        self._known = {index: kept for index, kept in self._known.items() if index > frame_index}


def sightings_of(percepts: Percepts, members: tuple[int, ...]) -> list[Sighting]:
    """What is compared of each chosen mask; a mask's numbers do not depend on the others."""
    masks = percepts.masks[list(members)]
    if not len(masks):
        return []
    looks = looks_of(percepts.image, masks) if percepts.image is not None else None
    channels = np.empty((0, masks[0].size), np.float32)
    if percepts.embedding is not None:
        channels = percepts.embedding.reshape(len(percepts.embedding), -1)
    background = percepts.background.reshape(1, -1)
    place, means = _measured(masks, np.ascontiguousarray(background), np.ascontiguousarray(channels))
    return [
        Sighting(
            member=member,
            # Copies: views would keep masks and looks of the whole frame alive as long as the track.
            mask=masks[i].copy(),
            area=int(place[i, 0]),
            place=place[i, 1:],
            look=looks[i].copy() if looks is not None and place[i, 0] else None,
            embedding=means[i, 1:].astype(np.float32) if len(channels) and place[i, 0] else None,
            foreground=float(1.0 - means[i, 0]) if place[i, 0] else 0.0,
            score=float(percepts.scores[member]),
        )
        for i, member in enumerate(members)
    ]


@compiled
def _measured(masks: np.ndarray, background: np.ndarray, embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area and centre (y, x) of masks [N, h, w], and means of background [1, P] and embedding [E, P] inside."""
    count, height, width = masks.shape
    place = np.zeros((count, 3))
    means = np.zeros((count, 1 + len(embedding)))
    inside = np.empty(height * width, np.int64)
    for i in range(count):
        area, down, right = 0, 0, 0
        for y in range(height):
            for x in range(width):
                if masks[i, y, x]:
                    inside[area] = y * width + x
                    area += 1
                    down += y
                    right += x
        if area == 0:
            continue
        place[i, 0], place[i, 1], place[i, 2] = area, down / area, right / area
        for e in range(1 + len(embedding)):
            plane = background[0] if e == 0 else embedding[e - 1]
            total = 0.0
            for k in range(area):
                total += plane[inside[k]]
            means[i, e] = total / area
    return place, means


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
