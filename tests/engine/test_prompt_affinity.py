"""Label propagation against a slow reference that follows Eq. 17 term by term."""

import numpy as np
import pytest

from engine.prompts.affinity import CAP, Past, frame_features, nearest, propagate
from engine.prompts.config import PromptsConfig
from tests.engine.prompt_scenes import percepts


def slow(features: np.ndarray, pasts: list[Past], wanted: np.ndarray, nearness: float) -> np.ndarray:
    """Mean over frames k of v_k(m) = sum_n softmax_n(affinity) y_k(n), in double precision, one pixel at a time."""
    h, w = features.shape[:2]
    out = np.zeros((h, w))
    for y, x in zip(*np.nonzero(wanted), strict=True):
        answers, weights = [], []
        for past in pasts:
            column, row = np.floor(past.position[:, y, x] + 0.5).astype(int)
            offsets = range(-past.radius, past.radius + 1, past.stride)
            affinities, labels = [], []
            for v, u, away in ((row + dy, column + dx, dx * dx + dy * dy) for dy in offsets for dx in offsets):
                if 0 <= v < h and 0 <= u < w:
                    apart = ((features[y, x].astype(float) - past.features[v, u]) ** 2).sum()
                    affinities.append(-min(apart, CAP) - nearness * away)
                    labels.append(past.labels[v, u])
            if affinities:
                total = np.exp(affinities).sum()
                answers.append(np.exp(affinities) @ np.array(labels) / total)
                weights.append(past.share * np.sqrt(total))
        if answers:
            out[y, x] = np.average(answers, weights=weights)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_propagation_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, size = 9, 13, 5

    def random(*shape: int) -> np.ndarray:
        return rng.normal(0, 1, shape).astype(np.float32)

    grid = np.mgrid[0:h, 0:w][::-1].astype(np.float32)
    pasts = [
        # Displacements beyond the border: the window is cut there.
        Past(random(h, w, size), rng.random((h, w)).astype(np.float32), grid + 3 * random(2, h, w), *window)
        for window in ((2, 1, 1.0), (4, 2, 0.5), (1, 1, 2.0))[: 1 + seed % 3]
    ]
    features, wanted = random(h, w, size), rng.random((h, w)) < 0.6
    found = propagate(features, pasts, wanted, 0.1)
    assert found == pytest.approx(slow(features, pasts, wanted, 0.1), abs=1e-4)
    assert not found[~wanted].any()
    assert found.max() > 0


def test_where_nothing_is_alike_all_vote_the_same() -> None:
    labels = np.zeros((3, 3), np.float32)
    labels[0] = 1.0
    grid = np.mgrid[0:3, 0:3][::-1].astype(np.float32)
    past = Past(np.zeros((3, 3, 2), np.float32), labels, grid, 1)
    found = propagate(np.full((3, 3, 2), 100, np.float32), [past], np.ones((3, 3), bool), 0.0)
    assert found[1, 1] == pytest.approx(1 / 3)


def test_nearest_equals_brute_force() -> None:
    rng = np.random.default_rng(5)
    queries, samples = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    brute = ((queries[:, None] - samples[None]) ** 2).sum(axis=2).min(axis=1)
    assert nearest(queries, samples) == pytest.approx(brute, rel=1e-5)
    assert np.isinf(nearest(queries, samples[:0])).all()


def test_features_leave_out_what_is_missing() -> None:
    full = percepts([(20, 20, 8, (200, 40, 40))])
    config = PromptsConfig()
    both = frame_features(full, config).shape[2]
    assert both == len(full.embedding) + 3
    assert frame_features(percepts([], embedding=False), config).shape[2] == 3
    assert frame_features(percepts([], colours=False), config).shape[2] == both - 3
    assert not frame_features(percepts([], embedding=False, colours=False), config).any()
