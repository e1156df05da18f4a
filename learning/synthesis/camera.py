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
        rolling: skew and stretch of the picture because its rows are exposed one after another.
    """

    shift: tuple[float, float]
    angle: float
    zoom: float
    tilt: tuple[float, float]
    relief: float
    rolling: tuple[float, float] = (0.0, 0.0)

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
        if self.rolling != (0.0, 0.0):
            skew, stretch = self.rolling
            rows = np.array([[1, skew, -skew * _CENTRE[1]], [0, 1 + stretch, -stretch * _CENTRE[1]], [0, 0, 1.0]])
            out = rows @ out
        return out

    def local_shift(self, point: np.ndarray, depth: float = 0.0) -> np.ndarray:
        """Displacement in pixels of a background point [2] between the two frames."""
        return transform(self.matrix(depth), point.astype(np.float32)) - point


STILL = Camera((0.0, 0.0), 0.0, 0.0, (0.0, 0.0), 0.0)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Positive random number with a uniform logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_camera(rng: Rng, calm: bool = False, chase: bool = False) -> Camera:
    """Random camera: fixed, held in a hand, panning or driving forward.

    Args:
        calm: keep it nearly still.
        chase: it follows something fast, so that the background streams by.
    """
    choice = rng.random()
    direction = rng.uniform(0, 2 * np.pi)
    relief = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.1, 0.9))
    if calm or choice < 0.22:
        jitter = 0.0 if rng.random() < 0.5 else rng.uniform(0, 0.3)
        return Camera((jitter * np.cos(direction), jitter * np.sin(direction)), 0.0, 0.0, (0.0, 0.0), relief)
    if chase:
        speed, zoom, angle = log_uniform(rng, 2.0, 28.0), rng.normal(0, 0.012), rng.normal(0, 0.008)
        direction = direction if rng.random() < 0.2 else rng.normal(0, 0.2) + np.pi * rng.integers(0, 2)
    elif choice < 0.48:
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
    rolling = (0.0, 0.0)
    if rng.random() < 0.08:
        skew, stretch = rng.normal(0, 0.002, 2) * min(speed, 10.0)
        rolling = (float(skew), float(stretch))
    return Camera(shift, float(angle), float(zoom), (float(tilt[0]), float(tilt[1])), relief, rolling)


def draw_parallax(rng: Rng, camera: Camera) -> np.ndarray | None:
    """Extra displacement of a background with relief, float32 [256, 448, 2] pixels: ground, bumps and steps."""
    if camera.speed < 0.2 or camera.relief == 0:
        depth = np.zeros(SIZE, np.float32)
    else:
        ramp = np.linspace(0, 1, SIZE[0], dtype=np.float32)[:, None] ** rng.uniform(0.5, 3)
        # A hillside or a floor close to the camera streams by several times faster than the distance.
        gain = rng.uniform(0.8, 2.8) if rng.random() < 0.3 else rng.uniform(0, 1.0)
        depth = np.broadcast_to(ramp * gain, SIZE).copy()
        depth += rng.uniform(0, 0.25) * smooth_noise(rng, SIZE, int(rng.integers(2, 8)))
        for _ in range(int(rng.integers(0, 3))):
            # A region at another depth: a wall, a hill, a hedge.
            region = smooth_noise(rng, SIZE, int(rng.integers(1, 6))) > rng.uniform(0, 1.2)
            depth += region * np.float32(rng.uniform(-0.5, 0.9))
    if not depth.any():
        return None
    return (transform(camera.matrix(), _PIXELS) - _PIXELS) * (depth * np.float32(camera.relief))[..., None]
