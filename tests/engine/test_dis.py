"""Dense inverse search against OpenCV's own, and its parts against their definitions."""

import cv2
import numpy as np
import pytest

from engine.perceive.dis.blend import blend
from engine.perceive.dis.flow import InverseSearch
from engine.perceive.dis.search import STRIDE_PX, patch_grid, structure

PATCH_PX = 8


def opencv_flow() -> cv2.DISOpticalFlow:
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setVariationalRefinementIterations(1)
    dis.setGradientDescentIterations(12)
    return dis


def picture(seed: int, size: tuple[int, int], softness_px: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // softness_px, size[1] // softness_px), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def moved(image: np.ndarray, dx: float, dy: float, degrees: float) -> np.ndarray:
    h, w = image.shape
    shift = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
    shift[:, 2] += dx, dy
    return cv2.warpAffine(image, shift, (w, h), borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize("size", [(192, 336), (96, 128), (100, 78), (64, 32)])
@pytest.mark.parametrize("motion", [(0.0, 0.0, 0.0), (2.6, -1.3, 0.0), (-19.0, 11.0, 0.0), (1.0, 3.0, 7.0)])
def test_flow_is_that_of_opencv(size: tuple[int, int], motion: tuple[float, float, float]) -> None:
    before = picture(1, size, 6)
    after = moved(before, *motion)
    search = InverseSearch()
    found = search.estimate(search.prepare(after), search.prepare(before))
    expected = opencv_flow().calc(after, before, None)
    assert found.shape == expected.shape == (*size, 2)
    # Bit for bit here; elsewhere OpenCV may have been built to fuse multiplications with sums.
    difference = np.abs(found - expected)
    assert np.median(difference) < 1e-4
    assert np.quantile(difference, 0.99) < 0.05


@pytest.mark.parametrize("pair", ["cut", "black", "white to black", "noise"])
def test_flow_is_that_of_opencv_where_there_is_none(pair: str) -> None:
    size = (192, 336)
    noise = np.random.default_rng(3).integers(0, 256, size, np.uint8)
    before, after = {
        "cut": (picture(5, size, 8), picture(6, size, 3)),
        "black": (np.zeros(size, np.uint8), np.zeros(size, np.uint8)),
        "white to black": (np.full(size, 255, np.uint8), np.zeros(size, np.uint8)),
        "noise": (noise, noise[::-1].copy()),
    }[pair]
    search = InverseSearch()
    found = search.estimate(search.prepare(after), search.prepare(before))
    assert np.isfinite(found).all()
    assert np.median(np.abs(found - opencv_flow().calc(after, before, None))) < 1e-4


def test_pictures_prepared_once_may_be_used_again() -> None:
    images = [moved(picture(2, (192, 336), 6), 3.0 * i, 1.0 * i, 0.0) for i in range(3)]
    search = InverseSearch()
    prepared = [search.prepare(image) for image in images]
    first = search.estimate(prepared[1], prepared[0])
    search.estimate(prepared[2], prepared[1])
    np.testing.assert_array_equal(search.estimate(prepared[1], prepared[0]), first)
    other = InverseSearch()
    np.testing.assert_array_equal(other.estimate(other.prepare(images[1]), other.prepare(images[0])), first)


def test_structure_sums_each_patch() -> None:
    rng = np.random.default_rng(7)
    gx, gy = rng.integers(-1020, 1021, (2, 29, 40)).astype(np.float32)
    rows, columns = patch_grid((29, 40))
    out = np.empty((5, rows, columns), np.float32)
    structure(gx, gy, out)
    for row in range(rows):
        for column in range(columns):
            y, x = row * STRIDE_PX, column * STRIDE_PX
            a = gx[y : y + PATCH_PX, x : x + PATCH_PX].astype(np.float64)
            b = gy[y : y + PATCH_PX, x : x + PATCH_PX].astype(np.float64)
            expected = [(a * a).sum(), (b * b).sum(), (a * b).sum(), a.sum(), b.sum()]
            # Running sums of squares pass 2^24, where float32 drops the last bits.
            np.testing.assert_allclose(out[:, row, column], expected, rtol=1e-5, atol=64)


def test_blend_is_the_mean_weighted_by_how_well_each_patch_fits() -> None:
    rng = np.random.default_rng(11)
    h, w = 30, 41
    image, other = rng.integers(0, 256, (2, h, w)).astype(np.float32)
    rows, columns = patch_grid((h, w))
    sparse_x, sparse_y = rng.normal(0, 6, (2, rows, columns)).astype(np.float32)
    dense_x, dense_y = np.empty((2, h, w), np.float32)
    blend(image, other, sparse_x, sparse_y, dense_x, dense_y)
    for y in range(0, h, 3):
        for x in range(w):
            total = np.zeros(3)
            for row in range(rows):
                for column in range(columns):
                    top, left = row * STRIDE_PX, column * STRIDE_PX
                    bottom = h if row == rows - 1 else top + PATCH_PX
                    right = w if column == columns - 1 else left + PATCH_PX
                    if not (top <= y < bottom and left <= x < right):
                        continue
                    u, v = float(sparse_x[row, column]), float(sparse_y[row, column])
                    px, py = min(max(x + u, 0.0), w - 1.001), min(max(y + v, 0.0), h - 1.001)
                    j, i = int(px), int(py)
                    upper = other[i, j] * (j + 1 - px) + other[i, j + 1] * (px - j)
                    lower = other[i + 1, j] * (j + 1 - px) + other[i + 1, j + 1] * (px - j)
                    weight = 1 / max(1.0, abs(upper * (i + 1 - py) + lower * (py - i) - image[y, x]))
                    total += weight * np.array([u, v, 1.0])
            assert dense_x[y, x] == pytest.approx(total[0] / total[2], abs=2e-3)
            assert dense_y[y, x] == pytest.approx(total[1] / total[2], abs=2e-3)
