"""What was learned of each object and of the background: bounded reservoirs of embeddings."""

from dataclasses import dataclass, field

import numpy as np

from engine.seeds.similarity import similarity, squared_distances
from engine.select.compiled import compiled

COPY_SIMILARITY = 0.95
"""R above which a new embedding takes the place of the one it repeats."""


class Reservoir:
    """At most `capacity` embeddings; the oldest and most redundant leave first.

    Args:
        capacity: rows kept.
        channels: E.
    """

    def __init__(self, capacity: int, channels: int) -> None:
        self._rows = np.zeros((capacity, channels), np.float32)
        self._stamps = np.zeros(capacity, np.int64)
        self._distances = np.full((capacity, capacity), np.inf, np.float32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> np.ndarray:
        """float32 [n, E], the embeddings kept."""
        return self._rows[: self._size]

    @property
    def stamps(self) -> np.ndarray:
        """int64 [n], when each was learned."""
        return self._stamps[: self._size]

    def learn(self, embeddings: np.ndarray, stamp: int) -> None:
        """Add float32 [n, E]; rows that are not finite are left out.

        A near-copy (R above `COPY_SIMILARITY`) replaces the row it repeats. In a full reservoir the row with
        the largest sum of redundancy (R to its nearest other row) and age rank (1 oldest, 0 newest) leaves.
        """
        finite = embeddings[np.isfinite(embeddings).all(axis=1)]
        # R = 2 / (1 + e^d) turned around.
        copy_distance = float(np.log(2.0 / COPY_SIMILARITY - 1.0))
        self._size = _learn(
            self._rows,
            self._stamps,
            self._distances,
            self._size,
            np.ascontiguousarray(finite, np.float32),
            stamp,
            copy_distance,
        )


@compiled
def _learn(
    rows: np.ndarray,
    stamps: np.ndarray,
    distances: np.ndarray,
    size: int,
    new: np.ndarray,
    stamp: int,
    copy_distance: float,
) -> int:
    capacity, channels = rows.shape
    apart = np.empty(capacity, np.float32)
    for n in range(len(new)):
        nearest = -1
        for i in range(size):
            total = np.float32(0.0)
            for e in range(channels):
                step = rows[i, e] - new[n, e]
                total += step * step
            apart[i] = total
            if nearest < 0 or total < apart[nearest]:
                nearest = i
        if nearest >= 0 and apart[nearest] <= copy_distance:
            place = nearest
        elif size < capacity:
            place = size
            size += 1
        else:
            place = _most_dispensable(stamps, distances)
        rows[place] = new[n]
        stamps[place] = stamp
        for i in range(size):
            distances[i, place] = apart[i]
            distances[place, i] = apart[i]
        distances[place, place] = np.inf
    return size


@compiled
def _most_dispensable(stamps: np.ndarray, distances: np.ndarray) -> int:
    """The row of a full reservoir with the largest redundancy plus age rank."""
    n = len(stamps)
    worst, place = -1.0, 0
    for i in range(n):
        older = 0
        nearest = np.inf
        for j in range(n):
            nearest = min(nearest, distances[i, j])
            if stamps[j] > stamps[i]:
                older += 1
        score = 2.0 / (1.0 + np.exp(min(nearest, 50.0))) + older / max(1, n - 1)
        if score > worst:
            worst, place = score, i
    return place


@dataclass(slots=True)
class ObjectMemory:
    """One object.

    Attributes:
        reservoir: its embeddings.
        seen: frame index of the latest lesson.
        foreground: smoothed O M of its seeds (F of Eq. 10), in [0, 1].
    """

    reservoir: Reservoir
    seen: int
    foreground: float


@dataclass
class SeedMemory:
    """Per-object foreground memories and one background memory.

    Attributes:
        channels: E.
        object_capacity, background_capacity: rows of each reservoir.
        limit: objects kept; those unseen longest leave.
        rate: gamma of the smoothed foreground score.
    """

    channels: int
    object_capacity: int
    background_capacity: int
    limit: int
    rate: float
    objects: dict[int, ObjectMemory] = field(default_factory=dict)
    background: Reservoir = field(init=False)

    def __post_init__(self) -> None:
        self.background = Reservoir(self.background_capacity, self.channels)

    def learn_object(self, identity: int, embeddings: np.ndarray, salience: float | None, stamp: int) -> None:
        """Add seeds of an object seen in frame `stamp`.

        Args:
            identity: its id.
            embeddings: float32 [n, E].
            salience: its O M in [0, 1], or None when nothing moved: standing still is no evidence either way.
            stamp: frame index.
        """
        memory = self.objects.get(identity)
        if memory is None:
            memory = ObjectMemory(Reservoir(self.object_capacity, self.channels), stamp, salience or 0.0)
            self.objects[identity] = memory
        elif salience is not None:
            memory.foreground += self.rate * (salience - memory.foreground)
        memory.seen = stamp
        memory.reservoir.learn(embeddings, stamp)
        while len(self.objects) > self.limit:
            del self.objects[min(self.objects, key=lambda key: self.objects[key].seen)]

    def known_rows(self, since: int, count: int) -> np.ndarray:
        """Embeddings float32 [n, E] of the `count` most recent objects seen in frame `since` or later."""
        recent = sorted((m for m in self.objects.values() if m.seen >= since), key=lambda m: -m.seen)[:count]
        if not recent:
            return np.empty((0, self.channels), np.float32)
        return np.concatenate([memory.reservoir.rows for memory in recent])

    def similarity(self, identity: int, embeddings: np.ndarray) -> float:
        """How much embeddings look like an object: mean over rows of the largest R to its memory, in [0, 1].

        Args:
            identity: its id; an unknown one gives 0.
            embeddings: float32 [E] or [n, E].
        """
        memory = self.objects.get(identity)
        rows = np.atleast_2d(embeddings)
        if memory is None or not len(memory.reservoir) or not len(rows):
            return 0.0
        return float(similarity(squared_distances(rows, memory.reservoir.rows).min(axis=1)).mean())

    def familiarity(self, embeddings: np.ndarray) -> np.ndarray:
        """Largest R of each row of float32 [n, E] to anything learned of any object: float32 [n]."""
        if not self.objects:
            return np.zeros(len(embeddings), np.float32)
        rows = np.concatenate([memory.reservoir.rows for memory in self.objects.values()])
        return similarity(squared_distances(embeddings, rows).min(axis=1))
