"""Superpixels are connected and keep to colours; ranking equals a slow reference; what stands out is found."""

import math

import cv2
import numpy as np
import pytest
from scipy import ndimage

from learning.mug.saliency import binary_saliency, border_regions, rank_regions, saliency
from learning.mug.superpixels import superpixels


def _scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on a noisy green ground, and where it is."""
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal((40, 140, 60), 8, (96, 160, 3)), 0, 255).astype(np.uint8)
    disc = np.zeros((96, 160), np.uint8)
    cv2.circle(disc, (90, 50), 24, 1, -1)
    image[disc > 0] = np.clip(rng.normal((50, 50, 190), 8, (int(disc.sum()), 3)), 0, 255).astype(np.uint8)
    return image, disc > 0


def test_superpixels_are_connected_and_keep_to_one_colour() -> None:
    image, disc = _scene()
    labels, colours = superpixels(image, 150)
    count = int(labels.max()) + 1
    assert 75 <= count <= 225
    assert sorted(np.unique(labels)) == list(range(count))
    assert colours.shape == (count, 3)
    for label in range(count):
        region = labels == label
        assert ndimage.label(region)[1] == 1
        share = disc[region].mean()
        assert min(share, 1 - share) * region.sum() <= 4
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    mean = lab[labels == 7].mean(axis=0)
    assert colours[7] == pytest.approx([mean[0] / 100, (mean[1] + 128) / 255, (mean[2] + 128) / 255], abs=1e-4)


def _slow_ranks(colours: np.ndarray, neighbours: np.ndarray, borders: list[np.ndarray]) -> np.ndarray:
    n = len(colours)
    rim = {int(i) for border in borders for i in border}
    weights = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            two_steps = any(neighbours[i, k] and neighbours[k, j] for k in range(n))
            if i != j and (neighbours[i, j] or two_steps or (i in rim and j in rim)):
                weights[i, j] = math.exp(-math.dist(colours[i], colours[j]) / 0.1)
    system = np.diag(weights.sum(axis=1)) - 0.99 * weights

    def rank(query: list[int]) -> np.ndarray:
        # Without the diagonal of the inverse: a query's rank is what the other queries give it.
        f = np.array([sum(np.linalg.solve(system, np.eye(n)[q])[i] for q in query if q != i) for i in range(n)])
        return (f - f.min()) / (f.max() - f.min())

    first = np.prod([1 - rank([int(i) for i in border]) for border in borders], axis=0)
    return rank([i for i in range(n) if first[i] >= first.mean()])


def test_ranks_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(20).reshape(4, 5)
    colours = rng.uniform(0.3, 0.6, (20, 3)).astype(np.float32)
    neighbours = np.zeros((20, 20), bool)
    for a in range(20):
        for b in range(20):
            neighbours[a, b] = abs(a // 5 - b // 5) + abs(a % 5 - b % 5) == 1
    ranks = rank_regions(colours, neighbours, border_regions(labels))
    assert ranks == pytest.approx(_slow_ranks(colours, neighbours, border_regions(labels)), abs=1e-6)


def test_what_stands_out_is_found() -> None:
    image, disc = _scene()
    values = saliency(image)
    assert values.dtype == np.float32
    assert values.shape == disc.shape
    assert values.min() >= 0
    assert values.max() <= 1
    found = binary_saliency(values)
    assert (found & disc).sum() / (found | disc).sum() > 0.8


def test_nothing_stands_out_of_one_colour() -> None:
    values = saliency(np.full((64, 96, 3), 90, np.uint8))
    assert not values.any()
    assert not binary_saliency(values).any()
    assert rank_regions(np.zeros((1, 3), np.float32), np.zeros((1, 1), bool), [np.array([0])] * 4).tolist() == [0.0]
