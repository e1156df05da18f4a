"""Moving water: waves, reflections and wakes. All of it is background."""

import cv2
import numpy as np

from learning.synthesis.assets import CANVAS
from learning.synthesis.render import Layer, transform
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import Rng, smooth_noise

_Y, _X = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
_GRID = (64, 112)
_SHORE_PX = 16


def wave_field(rng: Rng, shore: float) -> np.ndarray:
    """Displacement of a water surface below row `shore` between two frames, float32 [256, 448, 2] pixels."""
    below = np.clip((_Y - shore) / max(SIZE[0] - shore, 1.0), 0, 1)
    # Waves far away are seen at a flat angle: short and low.
    depth = below**0.6 * SIZE[0]
    field = np.zeros((*SIZE, 2), np.float32)
    for _ in range(int(rng.integers(2, 5))):
        length, tilt = rng.uniform(14, 110), rng.normal(0, 0.35)
        phase = 2 * np.pi / length * (depth * np.cos(tilt) + _X * np.sin(tilt) * 0.6) + rng.uniform(0, 2 * np.pi)
        change = np.sin(phase + rng.choice([-1, 1]) * rng.uniform(0.3, 2.0)) - np.sin(phase)
        field += change[..., None] * rng.normal(0, 1, 2).astype(np.float32) * np.array([1.0, 0.7], np.float32)
    cells = int(rng.integers(10, 40))
    chop = np.stack([smooth_noise(rng, (SIZE[0] * 2, SIZE[1]), cells)[::2] for _ in range(2)], axis=-1)
    field += rng.uniform(0.2, 1.0) * chop
    amplitude = float(np.exp(rng.uniform(np.log(0.6), np.log(5.0)))) / max(float(field.std()), 0.1)
    return field * (amplitude * (0.35 + 0.65 * below) * np.clip((_Y - shore) / _SHORE_PX, 0, 1))[..., None]


def flood(rng: Rng, canvas: np.ndarray, shore: int) -> np.ndarray:
    """Canvas uint8 [288, 504, 3] with a water surface below row `shore` that mirrors what is above it."""
    out = canvas.copy()
    height = CANVAS[0] - shore
    if height < 12:
        return out
    mirrored = canvas[shore:][::-1]
    if shore >= 8:
        row = np.arange(height) % (2 * shore)
        mirrored = canvas[np.where(row < shore, shore - 1 - row, row - shore)]
    ripple = smooth_noise(rng, (height * 4, CANVAS[1]), int(rng.integers(8, 24)))[: height * 4 : 4]
    y, x = np.mgrid[0:height, 0 : CANVAS[1]].astype(np.float32)
    shaken = cv2.remap(mirrored, x + 5 * ripple, y + 3 * ripple, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    base = rng.uniform(30, 150) * np.array([1.15, 1.0, 0.85]) + rng.normal(0, 14, 3)
    bands = smooth_noise(rng, (height * 5, CANVAS[1]), int(rng.integers(10, 40)))[: height * 5 : 5]
    glint = rng.uniform(0, 90) * np.maximum(bands - 1.2, 0)
    water = rng.uniform(0.15, 0.7) * (shaken - base) + base + (rng.uniform(6, 26) * bands + glint)[..., None]
    edge = np.clip(np.arange(height, dtype=np.float32) / 6, 0, 1)[:, None, None]
    out[shore:] = np.clip(out[shore:] * (1 - edge) + water * edge, 0, 255).astype(np.uint8)
    return out


def reflection(rng: Rng, layer: Layer, waves: np.ndarray | None) -> Layer:
    """The mirror image of a layer below its foot: fainter, rippled and part of the background."""
    h, w = layer.rgba.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    shake = rng.uniform(0.004, 0.03) * max(h, w)
    ripple = np.sin(y * rng.uniform(0.15, 0.6) + 1.5 * smooth_noise(rng, (h, w), 4)) * np.float32(shake)
    rgba = cv2.remap(layer.rgba, x + ripple, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(np.float32)
    rgba[..., 3] *= rng.uniform(0.25, 0.75)
    if rng.random() < 0.6:
        rgba[..., 3] *= np.linspace(0.3, 1, h, dtype=np.float32)[:, None]
    rgba[..., :3] = rgba[..., :3] * rng.uniform(0.6, 1.0) + rng.uniform(0, 25)
    now = np.array(layer.foot, np.float32)
    before = transform(np.linalg.inv(layer.motion), now)
    motion = _mirror(float(now[1])) @ layer.motion @ _mirror(float(before[1]))
    bend = None if waves is None else cv2.resize(waves, _GRID[::-1], interpolation=cv2.INTER_AREA)
    pixels = np.clip(cv2.blur(rgba, (3, 3)), 0, 255).astype(np.uint8)
    return Layer(pixels, layer.place @ _mirror(float(now[1])), motion, 0, bend)


def _mirror(row: float) -> np.ndarray:
    return np.array([[1.0, 0, 0], [0, -1, 2 * row], [0, 0, 1]])


def wake(rng: Rng, layer: Layer, ground: np.ndarray, side_px: float, waves: np.ndarray) -> Layer:
    """Foam trailing behind a layer that moves over the ground; part of the background.

    Args:
        ground: motion of the water as a whole, previous -> current frame.
        side_px: length of the layer in the frame.
    """
    foot = np.array(layer.foot, np.float32)
    ahead = foot - transform(layer.motion, transform(np.linalg.inv(ground), foot))
    angle = float(np.arctan2(ahead[1] * 0.4, ahead[0])) if np.hypot(*ahead) > 0.1 else rng.uniform(0, 2 * np.pi)
    h, w = 56, 160
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    spread = 0.15 + 0.35 * x / w
    foam = np.exp(-(((y / h - 0.5) / spread) ** 2) * 3) * (1 - x / w) * np.clip(x / 12, 0, 1)
    grain = smooth_noise(rng, (h, w), int(rng.integers(14, 40)))
    rgba = np.empty((h, w, 4), np.float32)
    rgba[..., :3] = rng.uniform(150, 245) + 20 * grain[..., None]
    rgba[..., 3] = 255 * rng.uniform(0.5, 1.0) * foam * np.clip(0.6 + 0.5 * grain, 0, 1.3)
    scale = side_px * rng.uniform(0.8, 2.5) / w
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    to_frame = np.array([[c, -s * 0.5, 0], [s, c * 0.5, 0], [0, 0, 1.0]])
    to_frame[:2, 2] = foot - to_frame[:2, :2] @ np.array([8, h / 2])
    drift = np.eye(3)
    drift[:2, 2] = -rng.uniform(0, 0.5) * ahead
    bend = cv2.resize(waves, _GRID[::-1], interpolation=cv2.INTER_AREA)
    return Layer(np.clip(rgba, 0, 255).astype(np.uint8), np.linalg.inv(to_frame), drift @ ground, 0, bend)
