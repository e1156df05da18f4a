"""Random camera motion between two frames, and what it does to things at different depths."""

from dataclasses import dataclass

import numpy as np

from learning.synthesis.render import similarity, transform
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import Rng, smooth_noise

_CENTRE = (SIZE[1] / 2, SIZE[0] / 2)
_PIXELS = np.stack(np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """Camera motion from the previous to the current frame.

    Attributes:
        shift: translation of the far background in pixels.
        angle: roll in rad.
        zoom: natural logarithm of the scale.
        tilt: the two projective terms.
        relief: how much nearer things move on top of the background, 0 when the camera only turns.
    """

    shift: tuple[float, float]
    angle: float
    zoom: float
    tilt: tuple[float, float]
    relief: float

    @property
    def speed(self) -> float:
        """Largest displacement of the background, roughly, in pixels."""
        return float(np.hypot(*self.shift) + abs(self.zoom) * SIZE[1] / 4)

    def matrix(self, depth: float = 0.0) -> np.ndarray:
        """Previous frame pixel -> current frame pixel for things `depth` nearer than the background."""
        near = 1 + depth * self.relief
        shift = (self.shift[0] * near, self.shift[1] * near)
        out = similarity(_CENTRE, shift, self.angle, float(np.exp(self.zoom * near)))
        out[2, :2] = self.tilt
        return out

    def local_shift(self, point: np.ndarray, depth: float = 0.0) -> np.ndarray:
        """Displacement in pixels of a background point [2] between the two frames."""
        return transform(self.matrix(depth), point.astype(np.float32)) - point


STILL = Camera((0.0, 0.0), 0.0, 0.0, (0.0, 0.0), 0.0)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Positive random number with a uniform logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_camera(rng: Rng, calm: bool = False) -> Camera:
    """Random camera: fixed, held in a hand, panning or driving forward; `calm` keeps it nearly still."""
    choice = rng.random()
    direction = rng.uniform(0, 2 * np.pi)
    relief = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.1, 0.9))
    if calm or choice < 0.22:
        jitter = 0.0 if rng.random() < 0.5 else rng.uniform(0, 0.3)
        return Camera((jitter * np.cos(direction), jitter * np.sin(direction)), 0.0, 0.0, (0.0, 0.0), relief)
    if choice < 0.48:
        speed, zoom, angle = log_uniform(rng, 0.3, 3.0), rng.normal(0, 0.003), rng.normal(0, 0.004)
    elif choice < 0.85:
        speed, zoom, angle = log_uniform(rng, 1.0, 18.0), rng.normal(0, 0.006), rng.normal(0, 0.006)
        # Cameras pan sideways more than up and down.
        direction = direction if rng.random() < 0.4 else rng.normal(0, 0.25) + np.pi * rng.integers(0, 2)
    else:
        speed, angle = log_uniform(rng, 0.2, 5.0), rng.normal(0, 0.006)
        zoom = rng.choice([-1, 1]) * log_uniform(rng, 0.006, 0.06)
    tilt = rng.normal(0, 1.2e-5, 2) * min(speed, 6.0)
    shift = (float(speed * np.cos(direction)), float(speed * np.sin(direction)))
    return Camera(shift, float(angle), float(zoom), (float(tilt[0]), float(tilt[1])), relief)


def draw_parallax(rng: Rng, camera: Camera) -> np.ndarray | None:
    """Extra displacement of a background with relief, float32 [256, 448, 2] pixels: ground, bumps, steps and water."""
    if camera.speed < 0.2 or camera.relief == 0:
        depth = np.zeros(SIZE, np.float32)
    else:
        ramp = np.linspace(0, 1, SIZE[0], dtype=np.float32)[:, None] ** rng.uniform(0.5, 3)
        depth = np.broadcast_to(ramp * rng.uniform(0, 1.0), SIZE).copy()
        depth += rng.uniform(0, 0.25) * smooth_noise(rng, SIZE, int(rng.integers(2, 8)))
        for _ in range(int(rng.integers(0, 3))):
            # A region at another depth: a wall, a hill, a hedge.
            region = smooth_noise(rng, SIZE, int(rng.integers(1, 6))) > rng.uniform(0, 1.2)
            depth += region * np.float32(rng.uniform(-0.5, 0.9))
    extra = None
    if depth.any():
        extra = (transform(camera.matrix(), _PIXELS) - _PIXELS) * (depth * np.float32(camera.relief))[..., None]
    if rng.random() < 0.06:
        rows = np.clip((np.arange(SIZE[0], dtype=np.float32) / SIZE[0] - rng.uniform(0.2, 0.7)) * 8, 0, 1)
        cells = int(rng.integers(8, 24))
        wave = np.stack([smooth_noise(rng, SIZE, cells) for _ in range(2)], axis=-1) * rows[:, None, None]
        wave = wave * np.float32(rng.uniform(0.3, 2.5))
        extra = wave if extra is None else extra + wave
    return extra
