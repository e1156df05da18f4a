"""Seeds linked over frames, streaming (Sec. 3.3, Eq. 9 and 10), by the dynamic programme that links masks.

The seeds of a frame are the nodes of `OnlinePath`. Going from the track that ends in seed j to seed k costs
1 - mean R(k, t) over the last W members t of that track (the sum of Eq. 9 over a fixed track orders seeds the
same way), a seed itself costs -O M. So the cheapest path is the track that stays alike and stands out (Eq. 10).
A seed no track resembles starts one of its own at `BIRTH_COST`, without the members of where the path came from.
"""

import numpy as np

from engine.seeds.similarity import similarity, squared_distances
from engine.select.compiled import compiled
from engine.select.path import OnlinePath

BIRTH_COST = 0.5
"""Cost of leaving a track for a new one: an extension less alike than R = 1/2 is none."""


class SeedTracks:
    """One track per seed of the newest frame, and the best of them.

    Args:
        members: W, embeddings a track remembers.
        rate: gamma of F_t = (1 - gamma) F_{t-1} + gamma O M; a new track starts at gamma O M.
        lag: frames the best path may still revise.

    Attributes:
        scores: F of each seed's track, float32 [S].
    """

    def __init__(self, members: int, rate: float, lag: int) -> None:
        self._members = members
        self._rate = rate
        self._lag = lag
        self.reset()

    def reset(self) -> None:
        """Forget every track."""
        self._path = _SeedPath(self._lag)
        self._history: list[np.ndarray] = []
        self._rings = np.empty((0, self._members), np.int64)
        self.scores = np.empty(0, np.float32)

    def step(self, embeddings: np.ndarray, salience: np.ndarray) -> int:
        """Extend the tracks by the seeds of the next frame.

        Args:
            embeddings: float32 [S, E], S >= 1.
            salience: O M of each seed, float [S] in [0, 1].

        Returns:
            The seed of this frame on the best track: the initial foreground seed s_FG.
        """
        earned = np.float32(self._rate) * salience.astype(np.float32)
        rings = np.full((len(embeddings), self._members), -1, np.int64)
        scores = np.zeros(len(embeddings), np.float32)
        if self._history:
            apart = 1.0 - self.affinity(embeddings)
            parents = self._path.extend(-salience, np.minimum(apart, BIRTH_COST))
            extends = apart[parents, np.arange(len(parents))] < BIRTH_COST
            rings[extends, :-1] = self._rings[parents[extends], 1:]
            scores[extends] = np.float32(1.0 - self._rate) * self.scores[parents[extends]]
        else:
            self._path.push(-salience, None)
        rings[:, -1] = np.arange(len(embeddings))
        self._rings, self.scores = rings, scores + earned
        self._history = [*self._history, embeddings][-self._members :]
        return self._path.best_node

    def affinity(self, embeddings: np.ndarray) -> np.ndarray:
        """Mean similarity of each track's members to each seed: float32 [tracks, S] (Eq. 9 over |T|).

        Args:
            embeddings: float32 [S, E] of the next frame.
        """
        history = self._history
        starts = np.zeros(self._members, np.int64)
        starts[-len(history) :] = np.cumsum([0, *(len(past) for past in history[:-1])])
        rings = np.where(self._rings >= 0, self._rings + starts, -1)
        # Tracks coalesce backwards: far fewer distinct members than tracks times W.
        used = np.zeros(sum(len(past) for past in history), bool)
        used[rings[rings >= 0]] = True
        alike = similarity(squared_distances(np.concatenate(history)[used], embeddings))
        return _ring_means(alike, np.where(rings >= 0, (np.cumsum(used) - 1)[rings], -1))


@compiled
def _ring_means(alike: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """Mean of the rows of alike [n, S] named by each row of rings int64 [T, W], -1 for none: float32 [T, S]."""
    tracks, length = rings.shape
    seeds = alike.shape[1]
    out = np.zeros((tracks, seeds), np.float32)
    for t in range(tracks):
        members = np.float32(0.0)
        for m in range(length):
            if rings[t, m] < 0:
                continue
            row = alike[rings[t, m]]
            members += np.float32(1.0)
            for s in range(seeds):
                out[t, s] += row[s]
        for s in range(seeds):
            out[t, s] /= members
    return out


class _SeedPath(OnlinePath):
    """An `OnlinePath` that also tells where each newest node came from."""

    def extend(self, unary: np.ndarray, pairwise: np.ndarray) -> np.ndarray:
        """Push, and return the best predecessor of each node, int64 [K]; the first of equal ones."""
        assert self._values is not None
        parents: np.ndarray = np.argmin(self._values[:, None] + pairwise, axis=0)
        self.push(unary, pairwise)
        return parents
