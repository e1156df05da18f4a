"""Eq. 1, and the nearest rows of Eq. 13 and 14, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.similarity import FARTHEST, nearest_distances, similarity, squared_distances


def test_similarity_is_two_over_one_plus_the_exponential_of_the_squared_distance() -> None:
    squared = np.array([0.0, 0.1, 1.0, 4.0], np.float32)
    assert similarity(squared) == pytest.approx(2.0 / (1.0 + np.exp(squared)), rel=1e-6)
    assert similarity(np.zeros(1))[0] == 1.0


def test_far_apart_is_zero_without_overflow() -> None:
    far = similarity(np.array([1e3, 1e30, np.inf], np.float32))
    assert np.isfinite(far).all()
    assert (far < 1e-20).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 700), st.integers(0, 2**31))
def test_nearest_row_of_every_pixel_equals_brute_force(rows: int, channels: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(channels, pixels)).astype(np.float32)
    members = rng.normal(size=(rows, channels)).astype(np.float32)
    expected = np.full(pixels, FARTHEST)
    for p in range(pixels):
        for row in members:
            expected[p] = min(expected[p], ((embedding[:, p].astype(float) - row) ** 2).sum())
    assert nearest_distances(embedding, members) == pytest.approx(expected, abs=1e-4)
    assert squared_distances(embedding.T, members).min(axis=1, initial=FARTHEST) == pytest.approx(expected, abs=1e-4)
