"""What a frame can teach: how much in it is sure over time, unsure in one image, and unlike what is stored."""

from collections.abc import Iterable, Sequence

import numpy as np

from engine.scene import Object
from engine.seeds.similarity import similarity, squared_distances

REMEMBERED = 2048
"""Embeddings compared with: 128 KB at 16 numbers each, 0.1 ms per frame."""


class Diversity:
    """Remembers the embeddings stored last; tells how unlike them another one is.

    Args:
        stored: (frame id, embedding float32 [E]) of what is in the store already, oldest first.
    """

    def __init__(self, stored: Iterable[tuple[int, np.ndarray]] = ()) -> None:
        self._kept = np.zeros((0, 0), np.float32)
        self._frames = np.zeros(0, np.int64)
        self._next = 0
        for frame_id, embedding in stored:
            self.keep(frame_id, [embedding])

    def of(self, embeddings: Sequence[np.ndarray | None]) -> list[float]:
        """1 - the largest similarity (Eq. 1 of Seeds) of each to those stored; 1 where nothing can be compared."""
        out = [1.0] * len(embeddings)
        kept = self._kept[self._frames > 0]
        known = {i: e for i, e in enumerate(embeddings) if e is not None and len(e) == kept.shape[1]}
        if known and len(kept):
            alike = similarity(squared_distances(np.stack(list(known.values())), kept)).max(axis=1)
            for i, value in zip(known, alike, strict=True):
                out[i] = max(0.0, 1.0 - float(value))
        return out

    def keep(self, frame_id: int, embeddings: Iterable[np.ndarray | None]) -> None:
        """Remember those of a stored frame, forgetting the oldest; another length (another model) starts anew."""
        for embedding in embeddings:
            if embedding is None:
                continue
            if self._kept.shape[1] != len(embedding):
                self._kept = np.zeros((REMEMBERED, len(embedding)), np.float32)
                self._frames = np.zeros(REMEMBERED, np.int64)
            self._kept[self._next], self._frames[self._next] = embedding, frame_id
            self._next = (self._next + 1) % REMEMBERED

    def forget(self, frame_ids: Sequence[int]) -> None:
        """These frames left the store: what was in them is new again."""
        self._frames[np.isin(self._frames, frame_ids)] = 0


def usefulness(objects: Sequence[Object], embeddings: Sequence[np.ndarray | None], diversity: Diversity) -> float:
    """Sum over the objects of novelty x diversity."""
    return sum(item.novelty * other for item, other in zip(objects, diversity.of(embeddings), strict=True))
