"""Procedural surfaces of the built-in scene: noise, patterns and palettes."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Palette = Sequence[tuple[int, int, int]]

# Dark to light, BGR. Some are close to the backdrops on purpose: not every object stands out by its colour.
OBJECT_PALETTES: tuple[Palette, ...] = (
    ((30, 36, 92), (44, 66, 178), (140, 176, 232)),
    ((78, 42, 22), (158, 92, 38), (226, 196, 150)),
    ((24, 58, 84), (52, 128, 198), (150, 214, 240)),
    ((26, 62, 30), (64, 134, 72), (168, 214, 178)),
    ((36, 34, 38), (110, 108, 112), (222, 224, 226)),
    ((70, 26, 74), (150, 70, 152), (222, 182, 226)),
    ((22, 38, 60), (58, 92, 132), (150, 184, 214)),
    ((88, 72, 20), (176, 160, 62), (226, 226, 180)),
)


def noise(rng: np.random.Generator, size: tuple[int, int], cell_px: float, octaves: int = 4) -> np.ndarray:
    """Smooth multi-octave noise, float32 [H, W] in [0, 1]; `cell_px` is the size of the coarsest blobs."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        cell = max(1.0, cell_px / 2**octave)
        grid = rng.random((int(height / cell) + 3, int(width / cell) + 3), np.float32)
        blobs = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += blobs[:height, :width] * 0.55**octave
    low, high = np.percentile(total[::4, ::4], (1, 99))
    return np.clip((total - low) / max(float(high - low), 1e-6), 0, 1)


def colorize(values: np.ndarray, palette: Palette) -> np.ndarray:
    """Map float [H, W] in [0, 1] to BGR float32 [H, W, 3] along `palette`."""
    stops = np.linspace(0, 1, len(palette))
    table = np.stack([np.interp(np.linspace(0, 1, 256), stops, channel) for channel in zip(*palette, strict=True)], -1)
    return table.astype(np.float32)[(values * 255).astype(np.uint8)]


def stripes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Bands of random direction, bent by noise."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    period_px = size[0] * rng.uniform(0.1, 0.2)
    bend = noise(rng, size, size[0] * 0.5, 2) * rng.uniform(0.4, 1.0)
    wave = np.sin(2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / period_px + bend))
    return np.clip(wave * 2 + 0.5, 0, 1)


def checks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A chequered pattern of random direction with three tones."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi / 2)
    cell_px = size[0] * rng.uniform(0.1, 0.18)
    u = np.floor((x * np.cos(angle) + y * np.sin(angle)) / cell_px)
    v = np.floor((y * np.cos(angle) - x * np.sin(angle)) / cell_px)
    tone: np.ndarray = 0.15 + 0.35 * ((u % 2) + (v % 2))
    return tone


def spots(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Irregular patches with soft borders."""
    return np.clip((noise(rng, size, size[0] * rng.uniform(0.15, 0.28), 2) - 0.52) * 9 + 0.5, 0, 1)


def marble(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Cloudy noise over a gradient."""
    ramp = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
    return np.clip(0.65 * noise(rng, size, size[0] * 0.35, 5) + 0.35 * ramp, 0, 1)


def rings(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Sectors and rings around the centre."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    dx, dy = x - size[1] / 2, y - size[0] / 2
    sectors = np.floor(np.arctan2(dy, dx) / (2 * np.pi) * int(rng.integers(3, 5)) * 2) % 2
    hub = np.hypot(dx, dy) < 0.12 * size[0]
    return np.where(hub, 0.95, 0.25 + 0.55 * sectors).astype(np.float32)


PATTERNS: tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], ...] = (
    stripes,
    spots,
    checks,
    marble,
    rings,
)


def object_surface(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    """A random pattern in the colours of `palette` with grain, float32 [H, W, 3] BGR in [0, 255]."""
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, size)
    cloud = noise(rng, size, size[0] * 0.3, 2)
    grain = noise(rng, size, size[0] * 0.06, 4)
    return colorize(np.clip(pattern * 0.72 + cloud * 0.18 + grain * 0.26 - 0.1, 0, 1), palette)


def bricks(
    rng: np.random.Generator, size: tuple[int, int], brick_px: tuple[float, float], palette: Palette
) -> np.ndarray:
    """Bricks, slabs or boards of `brick_px` (height, width) in a running bond, float32 [H, W, 3] BGR."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    row = np.floor(y / brick_px[0])
    shift = np.modf(row * 0.5 + np.floor(row / 2) * 0.31)[0] * brick_px[1]
    column = np.floor((x + shift) / brick_px[1])
    tones = rng.random(4096, np.float32)
    tone = tones[((row * 131 + column * 31) % 4096).astype(np.int32)]
    joint_px = max(1.0, 0.07 * brick_px[0])
    in_joint = (np.minimum(y % brick_px[0], (x + shift) % brick_px[1]) < joint_px).astype(np.float32)
    values = 0.3 + 0.35 * tone + 0.3 * noise(rng, size, brick_px[0], 4)
    surface = colorize(np.clip(values, 0, 1), palette)
    surface *= 1 - 0.45 * cv2.GaussianBlur(in_joint, (0, 0), 0.7)[..., None]
    return surface
