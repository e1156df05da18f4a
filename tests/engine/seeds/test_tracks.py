"""Seed tracks (Eq. 9, 10) against a plain dynamic programme over whole embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.tracks import BIRTH_COST, SeedTracks


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 / (1.0 + float(np.exp(min(((a.astype(float) - b) ** 2).sum(), 50.0))))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.integers(1, 7))
def test_tracks_equal_a_slow_reference(seed: int, members: int, frames: int) -> None:
    """Affinity is Eq. 9 over |T|, the best path follows it, and F decays along each path."""
    rng = np.random.default_rng(seed)
    tracks, rate = SeedTracks(members, 0.3, 100), 0.3
    known: list[list[np.ndarray]] = []
    values: list[float] = []
    scores: list[float] = []
    for _ in range(frames):
        count = int(rng.integers(1, 6))
        f, salience = rng.normal(size=(count, 3)).astype(np.float32) * 0.7, rng.random(count)
        if known:
            affinity = np.array([[np.mean([alike(t, s) for t in track]) for s in f] for track in known])
            assert tracks.affinity(f) == pytest.approx(affinity, abs=1e-4)
            cost = np.array(values)[:, None] + np.minimum(1.0 - affinity, BIRTH_COST)
            parents = cost.argmin(axis=0)
            values = [float(cost[parents[k], k] - salience[k]) for k in range(count)]
            born = [affinity[parents[k], k] <= 1 - BIRTH_COST for k in range(count)]
            scores = [rate * salience[k] + (0 if born[k] else (1 - rate) * scores[parents[k]]) for k in range(count)]
            known = [[*([] if born[k] else known[parents[k]]), f[k]][-members:] for k in range(count)]
        else:
            values, scores = list(-salience), list(rate * salience)
            known = [[row] for row in f]
        assert tracks.step(f, salience) == int(np.argmin(values))
        assert tracks.scores == pytest.approx(scores, abs=1e-4)


def test_a_flicker_elsewhere_does_not_steal_the_foreground_seed() -> None:
    thing, wall, lamp = np.eye(3, dtype=np.float32) * 3
    tracks = SeedTracks(10, 0.1, 5)
    for t in range(20):
        order = np.random.default_rng(t).permutation(3)
        salience = np.array([0.6, 0.0, 0.9 if t == 12 else 0.0])
        best = tracks.step(np.stack([thing, wall, lamp])[order], salience[order])
        assert order[best] == 0, t


def test_a_track_may_start_in_any_frame() -> None:
    wall, thing = np.array([[0, 3], [3, 0]], np.float32)
    tracks = SeedTracks(10, 0.1, 5)
    for _ in range(5):
        tracks.step(wall[None], np.zeros(1))
    found = [tracks.step(np.stack([wall, thing]), np.array([0.0, 0.8])) for _ in range(6)]
    assert found[-1] == 1
    assert tracks.scores[1] > 0.3
    tracks.reset()
    assert tracks.step(wall[None], np.zeros(1)) == 0


def test_the_score_of_a_track_forgets_at_the_stated_rate() -> None:
    tracks = SeedTracks(4, 0.1, 2)
    f = np.zeros((1, 2), np.float32)
    for _ in range(60):
        tracks.step(f, np.ones(1))
    assert tracks.scores[0] == pytest.approx(1 - 0.9**60, abs=1e-4)
    for _ in range(10):
        tracks.step(f, np.zeros(1))
    assert tracks.scores[0] == pytest.approx((1 - 0.9**60) * 0.9**10, abs=1e-4)
