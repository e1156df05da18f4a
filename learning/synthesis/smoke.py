"""Smoke and dust: soft, half transparent and deforming. Background, also where it hides an object."""

import numpy as np

from learning.synthesis.render import Layer, bend_field, similarity
from learning.synthesis.shapes import Rng, smooth_noise

_SIDE_PX = 160


def smoke_pixels(rng: Rng, opacity: float) -> np.ndarray:
    """A cloud, uint8 [160, 160, 4] BGR and alpha; `opacity` is the alpha of its densest part in [0, 1]."""
    size = (_SIDE_PX, _SIDE_PX)
    y, x = np.mgrid[-1 : 1 : _SIDE_PX * 1j, -1 : 1 : _SIDE_PX * 1j].astype(np.float32)
    billows = sum(smooth_noise(rng, size, cells) / np.float32(cells**0.7) for cells in (3, 6, 12, 24))
    falloff = np.clip(1.6 * (1 - np.hypot(x, y)), 0, 1)
    density = falloff * np.clip(1 + 0.9 * billows, 0, None)
    density = np.clip(density / max(float(np.percentile(density, 80)), 1e-3), 0, 1)
    shade = rng.uniform(35, 110) if rng.random() < 0.2 else rng.uniform(140, 245)
    dust = np.array([0.75, 0.88, 1.0]) if rng.random() < 0.4 else np.ones(3)
    out = np.empty((*size, 4), np.float32)
    out[..., :3] = shade * dust + 14 * billows[..., None]
    out[..., 3] = 255 * opacity * density
    return np.clip(out, 0, 255).astype(np.uint8)


def draw_smoke(rng: Rng, centre: np.ndarray, side_px: float, ground: np.ndarray, drag: np.ndarray) -> Layer:
    """A cloud about `centre` [2] that grows, turns and drifts.

    Args:
        ground: motion of the ground, previous -> current frame.
        drag: displacement [2] in pixels of what raises the cloud; it follows in part.
    """
    rgba = smoke_pixels(rng, float(rng.uniform(0.35, 1.0)))
    squash, turn = rng.uniform(0.45, 1.0), rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    scale = side_px / _SIDE_PX
    to_frame = np.array([[scale, 0, centre[0]], [0, scale * squash, centre[1]], [0, 0, 1.0]])
    to_frame = to_frame @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    to_frame = to_frame @ np.array([[1, 0, -_SIDE_PX / 2], [0, 1, -_SIDE_PX / 2], [0, 0, 1]])
    shift = drag * rng.uniform(0, 0.8) + rng.normal(0, 2.0, 2) + np.array([0.0, -abs(rng.normal(0, 1.5))])
    drift = similarity(
        (float(centre[0]), float(centre[1])),
        (float(shift[0]), float(shift[1])),
        float(rng.normal(0, 0.03)),
        float(np.exp(rng.normal(0.015, 0.02))),
    )
    return Layer(rgba, np.linalg.inv(to_frame), drift @ ground, 0, bend_field(rng, float(rng.uniform(1.0, 5.0))))
