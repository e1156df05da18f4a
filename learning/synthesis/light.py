"""Light that changes between the two frames of a sample."""

from dataclasses import dataclass

import numpy as np

from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import Rng

_Y, _X = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)


@dataclass(frozen=True)
class Light:
    """Change of exposure, and a soft bright or dark area that wanders.

    Attributes:
        gain: float32 [3], BGR factors of the previous frame against the current one.
        glow: float32 [2, 256, 448] factors of the previous and the current frame, or None.
    """

    gain: np.ndarray
    glow: np.ndarray | None

    @staticmethod
    def draw(rng: Rng) -> "Light":
        """Mostly constant light; the exposure changes in one sample of five, a part of the picture in one of twelve."""
        gain = np.ones(3, np.float32)
        if rng.random() < 0.2:
            gain += np.float32(rng.uniform(-0.12, 0.12)) + rng.normal(0, 0.015, 3).astype(np.float32)
        glow = None
        if rng.random() < 0.08:
            centre, step = rng.uniform(0, 1, 2) * SIZE[::-1], rng.normal(0, 8, 2)
            wide, high, strength = (
                rng.uniform(25, 140),
                rng.uniform(20, 90),
                rng.choice([-1, 1]) * rng.uniform(0.1, 0.4),
            )
            glow = np.empty((2, *SIZE), np.float32)
            for number, (x, y) in enumerate((centre - step, centre)):
                glow[number] = 1 + strength * np.exp(-(((_X - x) / wide) ** 2) - ((_Y - y) / high) ** 2)
        return Light(gain, glow)

    def apply(self, image: np.ndarray, previous: bool) -> np.ndarray:
        """Image uint8 [256, 448, 3] as lit at the time of the previous or the current frame."""
        if self.glow is None and (not previous or (self.gain == 1).all()):
            return image
        factor = self.gain if previous else np.ones(3, np.float32)
        if self.glow is not None:
            factor = factor * self.glow[0 if previous else 1][..., None]
        return np.clip(image * factor, 0, 255).astype(np.uint8)
