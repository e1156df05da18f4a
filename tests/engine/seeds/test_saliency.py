"""Motion saliency (Eq. 7, 8) against its definition, and where it is 0/0 on paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.seeds.saliency import lowest_objectness, motion_saliency, region_means


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 999))
def test_saliency_is_the_normalised_distance_to_the_nearest_background_motion(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow, background = rng.normal(size=(n, 2)) * 3, rng.permutation(n)[: max(1, n // 3)]
    nearest = [min(((flow[s] - flow[b]) ** 2).sum() for b in background) for s in range(n)]
    found = motion_saliency(flow, background, 0.01)
    expected = np.array(nearest) / max(*nearest, 0.01**2)
    assert found.motion == pytest.approx(expected, rel=1e-5)
    assert found.moving == (max(nearest) >= 0.01**2)


def test_a_static_scene_gives_zero_and_says_so() -> None:
    still = motion_saliency(np.zeros((6, 2)), np.array([0]), 0.25)
    assert not still.motion.any()
    assert not still.moving
    jitter = motion_saliency(np.random.default_rng(0).normal(size=(6, 2)) * 0.01, np.array([0]), 0.25)
    assert jitter.motion.max() < 0.05
    assert not jitter.moving


def test_region_flow_is_the_mean_over_its_pixels() -> None:
    rng = np.random.default_rng(2)
    labels, flow = rng.integers(0, 3, 40), rng.normal(size=(2, 40)).astype(np.float32)
    means = region_means(labels, flow, 4)
    for s in range(3):
        assert means[s] == pytest.approx(flow[:, labels == s].mean(axis=1), abs=1e-6)
    assert not means[3].any()


def test_background_motion_is_modelled_by_the_least_object_like_fifth() -> None:
    objectness = np.array([0.9, 0.1, 0.5, 0.2, 0.3, 0.8, 0.7, 0.6, 0.95, 0.4])
    assert lowest_objectness(objectness, 5).tolist() == [1, 3]
    assert lowest_objectness(np.array([0.3]), 5).tolist() == [0]
