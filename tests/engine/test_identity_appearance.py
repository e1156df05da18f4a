"""Colour histograms and the memory of them."""

import cv2
import numpy as np
from scipy import ndimage

from engine.appearance import CHROMA_LEVELS, HISTOGRAM_SIZE, LIGHTNESS_LEVELS, AppearanceMemory, looks_of
from tests.engine.test_propose import GRID, disc


def slow_look(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inner = ndimage.binary_erosion(mask, border_value=1)
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)[inner if inner.sum() >= 10 else mask].astype(int)
    lightness = pixels[:, 0] * LIGHTNESS_LEVELS // 256
    chroma = np.clip((pixels[:, 1:] - 64) * CHROMA_LEVELS // 128, 0, CHROMA_LEVELS - 1)
    bins = (lightness * CHROMA_LEVELS + chroma[:, 0]) * CHROMA_LEVELS + chroma[:, 1]
    counts = np.bincount(bins, minlength=HISTOGRAM_SIZE)
    return np.sqrt(counts / max(counts.sum(), 1))


def test_looks_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*GRID, 3), np.uint8), (0, 0), 3) // 2 + rng.integers(
        0, 128, (*GRID, 3), np.uint8
    )
    masks = np.array(
        [disc(30, 50, 9), disc(2, 2, 8), disc(40, 80, 1), np.zeros(GRID, bool), rng.random(GRID) < 0.6, disc(63, 60, 4)]
    )
    for look, mask in zip(looks_of(image, masks), masks, strict=True):
        np.testing.assert_allclose(look, slow_look(image, mask), atol=1e-6)


def test_likeness_is_one_for_itself_and_falls_with_mixture() -> None:
    image = np.zeros((*GRID, 3), np.uint8)
    image[:, :56], image[:, 56:] = (40, 40, 200), (200, 90, 30)
    red, blue, both = looks_of(image, np.array([disc(30, 30, 8), disc(30, 80, 8), disc(30, 55.5, 8)]))
    memory = AppearanceMemory(red[None], 4)
    alike = memory.likeness(np.stack([red, both, blue]))
    np.testing.assert_allclose(alike, [1.0, 0.5**0.5, 0.0], atol=0.05)


def test_one_wrong_sample_does_not_make_a_stranger_familiar() -> None:
    one, two = np.eye(HISTOGRAM_SIZE, dtype=np.float32)[:2]
    own = [np.sqrt(0.9) * one + np.sqrt(0.1) * axis for axis in np.eye(HISTOGRAM_SIZE, dtype=np.float32)[2:6]]
    memory = AppearanceMemory(np.stack([*own, two]), 12)
    assert memory.likeness(one[None])[0] > 0.9
    assert memory.likeness(two[None])[0] < 0.5


def test_memory_stays_bounded_keeps_variety_and_is_never_changed_in_place() -> None:
    axes = np.eye(HISTOGRAM_SIZE, dtype=np.float32)
    memory = AppearanceMemory(axes[:1], 4)
    before = memory.samples.copy()
    shared = memory
    for k in range(1, 4):
        memory = memory.with_look(axes[k])
    near_copy = np.sqrt(0.8) * axes[3] + np.sqrt(0.2) * axes[9]
    memory = memory.with_look(near_copy)
    assert memory.samples.shape == (4, HISTOGRAM_SIZE)
    # Of the two alike the older one left; the three others stay.
    np.testing.assert_allclose(memory.samples, np.stack([axes[0], axes[1], axes[2], near_copy]), atol=1e-6)
    np.testing.assert_array_equal(shared.samples, before)
    assert memory.with_look(near_copy) is memory
