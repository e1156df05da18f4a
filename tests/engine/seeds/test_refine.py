"""The edge-aware filter and the random field against slow definitions."""

import numpy as np
import pytest

from engine.seeds.refine import dense_crf, gray, guided_filter, refine_at_frame


def slow_guided(guide: np.ndarray, source: np.ndarray, r: int, epsilon: float) -> np.ndarray:
    g, p = (np.pad(v, r, mode="symmetric").astype(float) for v in (guide, source))
    h, w = guide.shape
    a, b = np.zeros((h, w)), np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            gw, pw = g[y : y + 2 * r + 1, x : x + 2 * r + 1], p[y : y + 2 * r + 1, x : x + 2 * r + 1]
            a[y, x] = ((gw * pw).mean() - gw.mean() * pw.mean()) / (gw.var() + epsilon)
            b[y, x] = pw.mean() - a[y, x] * gw.mean()
    pa, pb = np.pad(a, r, mode="symmetric"), np.pad(b, r, mode="symmetric")
    out = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            window = np.s_[y : y + 2 * r + 1, x : x + 2 * r + 1]
            out[y, x] = pa[window].mean() * guide[y, x] + pb[window].mean()
    return np.clip(out, 0, 1)


@pytest.mark.parametrize("radius_px", [1, 3])
def test_guided_filter_equals_local_linear_models(radius_px: int) -> None:
    guide, source = np.random.default_rng(0).random((2, 13, 17)).astype(np.float32)
    expected = slow_guided(guide, source, radius_px, 1e-2)
    assert guided_filter(guide, source, radius_px, 1e-2) == pytest.approx(expected, abs=1e-4)


def test_a_flat_image_only_smooths_and_a_constant_map_stays() -> None:
    flat, noise = np.full((20, 20), 0.4, np.float32), np.random.default_rng(1).random((20, 20)).astype(np.float32)
    assert guided_filter(flat, noise).std() < 0.3 * noise.std()
    assert guided_filter(noise, np.full((20, 20), 0.7, np.float32)) == pytest.approx(0.7, abs=1e-4)


def test_at_frame_resolution_the_border_moves_to_the_image_edge() -> None:
    image = np.zeros((128, 224, 3), np.uint8)
    image[:, 106:] = 255
    coarse = np.zeros((32, 56), np.float32)
    coarse[:, 28:] = 1.0  # six pixels off: its border lies at column 112
    fine = refine_at_frame(image, coarse, epsilon=1e-4)
    assert fine.shape == (128, 224)
    assert ((fine > 0.5) == (image[:, :, 0] > 0)).all()
    assert gray(image).max() == pytest.approx(1.0)


def slow_crf_step(image: np.ndarray, p: np.ndarray, r: int) -> np.ndarray:
    h, w = p.shape
    out = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            v, u = np.mgrid[max(0, y - r) : min(h, y + r + 1), max(0, x - r) : min(w, x + r + 1)]
            other = (v != y) | (u != x)
            v, u = v[other], u[other]
            apart = (v - y) ** 2 + (u - x) ** 2
            contrast = ((image[v, u].astype(float) - image[y, x]) ** 2).sum(axis=1)
            appearance = np.exp(-apart / (2 * 6.0**2) - contrast / (2 * 10.0**2))
            smooth = np.exp(-apart / (2 * 3.0**2))
            opinion = 2 * p[v, u] - 1
            heard = 4 * (appearance * opinion).sum() / (appearance.sum() + 1e-12)
            heard += 3 * (smooth * opinion).sum() / smooth.sum()
            out[y, x] = 1 / (1 + np.exp(-(np.log(p[y, x] / (1 - p[y, x])) + heard)))
    return out


def test_one_mean_field_update_equals_its_definition() -> None:
    rng = np.random.default_rng(3)
    image, p = rng.integers(0, 60, (9, 11, 3), np.uint8), rng.uniform(0.1, 0.9, (9, 11)).astype(np.float32)
    assert dense_crf(image, p, iterations=1, radius_px=2) == pytest.approx(slow_crf_step(image, p, 2), abs=1e-4)


def test_the_random_field_follows_colour_and_removes_specks() -> None:
    image = np.zeros((24, 32, 3), np.uint8)
    image[6:18, 8:24] = 200
    truth = image[:, :, 0] > 0
    rng = np.random.default_rng(4)
    p = np.clip(np.where(truth, 0.65, 0.35) + rng.normal(size=truth.shape) * 0.15, 0.02, 0.98).astype(np.float32)
    refined = dense_crf(image, p) > 0.5
    assert (refined != truth).sum() < 0.2 * ((p > 0.5) != truth).sum()
