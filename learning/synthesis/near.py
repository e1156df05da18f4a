"""Things fixed to the world in front of the scene: poles, rows of trunks, fences and rocks."""

import cv2
import numpy as np

from learning.synthesis.shapes import SIDE_PX, Rng, fill, fit, radial, smooth_noise, surface

_SIZE = (SIDE_PX, 2 * SIDE_PX)


def _pole(rng: Rng, picture: np.ndarray) -> np.ndarray:
    colour = surface(rng, (SIDE_PX, SIDE_PX), picture)
    alpha = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    width = SIDE_PX * rng.uniform(0.04, 0.3) if rng.random() < 0.6 else SIDE_PX * 0.8
    low = int((SIDE_PX - width) / 2)
    alpha[2:-2, low : SIDE_PX - low] = 255
    return np.dstack([colour, alpha])


def _row(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """Trunks or fence posts side by side, sometimes joined by rails."""
    colour = surface(rng, _SIZE, picture)
    alpha = np.zeros(_SIZE, np.uint8)
    count, regular = int(rng.integers(2, 9)), rng.random() < 0.5
    thick = rng.uniform(0.06, 0.35) * _SIZE[1] / count
    for number in range(count):
        middle = (number + (0.5 if regular else rng.uniform(0.2, 0.8))) * _SIZE[1] / count
        half, lean = thick * (0.5 if regular else rng.uniform(0.3, 0.7)), rng.normal(0, 0 if regular else 6)
        top = 3 if regular else int(rng.integers(3, 30))
        trunk = [[middle - half + lean, top], [middle + half + lean, top], [middle + half, 172], [middle - half, 172]]
        fill(alpha, np.array(trunk, np.float32))
    if rng.random() < 0.4:
        for row in rng.uniform(0.1, 0.9, int(rng.integers(1, 5))) * SIDE_PX:
            cv2.line(alpha, (4, int(row)), (_SIZE[1] - 4, int(row)), 255, int(rng.integers(2, 9)))
    shade = 1 + 0.25 * smooth_noise(rng, _SIZE, 4 * count)[..., None]
    return np.dstack([np.clip(colour * shade, 0, 255).astype(np.uint8), alpha])


def _rocks(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """A heap of boulders or bushes along the lower edge."""
    colour = surface(rng, _SIZE, picture)
    alpha = np.zeros(_SIZE, np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        rock = np.zeros_like(alpha)
        side = rng.uniform(0.3, 0.9)
        at = np.array([rng.uniform(0, 1) * (_SIZE[1] - side * SIDE_PX), SIDE_PX * (1 - side * rng.uniform(0.6, 0.95))])
        fill(rock, (fit(radial(rng, int(rng.integers(2, 8)))) * side + at).astype(np.float32))
        light = rng.uniform(0.6, 1.2) + 0.2 * smooth_noise(rng, _SIZE, int(rng.integers(4, 12)))
        inside = rock > 0
        colour[inside] = np.clip(colour[inside] * light[inside][:, None], 0, 255).astype(np.uint8)
        alpha = np.maximum(alpha, rock)
    alpha[:, [0, -1]] = 0
    return np.dstack([colour, alpha])


def near_cutout(rng: Rng, picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Something static to put close to the camera.

    Returns:
        rgba: uint8 [h, w, 4] BGR and alpha.
        side_px: length of its longer side in the frame.
    """
    choice = rng.random()
    if choice < 0.4:
        return _pole(rng, picture), float(rng.uniform(200, 600))
    if choice < 0.72:
        return _row(rng, picture), float(rng.uniform(260, 800))
    return _rocks(rng, picture), float(rng.uniform(180, 600))
