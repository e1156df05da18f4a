"""Pairs of frames of drawn scenes: shapes that move against the camera over surfaces; no picture, no label needed."""

from dataclasses import dataclass

import cv2
import numpy as np

from learning.synthesis.camera import draw_camera, draw_parallax
from learning.synthesis.render import Layer, Lens, Stage, render, similarity
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import shape_cutout, surface


@dataclass(frozen=True)
class DrawnPair:
    """Two frames of one scene.

    Attributes:
        images: uint8 [2, 256, 448, 3] RGB, earlier and later.
        foreground: bool [256, 448], the shapes in the later one.
    """

    images: np.ndarray
    foreground: np.ndarray


def drawn_pair(rng: np.random.Generator) -> DrawnPair:
    """One scene of one to three shapes seen twice by a moving camera."""
    camera = draw_camera(rng)
    stage = Stage(surface(rng, SIZE, None), np.eye(3), camera.matrix(), draw_parallax(rng, camera))
    for label in range(1, int(rng.integers(2, 5))):
        rgba = shape_cutout(rng, stage.canvas)
        corner = rng.uniform([0, 0], [SIZE[1] - 160, SIZE[0] - 160])
        place = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1.0]])
        angle = rng.uniform(0, 2 * np.pi)
        pace = rng.uniform(4, 14)
        shift = (float(pace * np.cos(angle)), float(pace * np.sin(angle)))
        stage.layers.append(Layer(rgba, place, similarity((SIZE[1] / 2, SIZE[0] / 2), shift, 0.0, 1.0), label))
    previous, current, ids = render(stage, pair=True)
    assert previous is not None
    lens = Lens.draw(rng)
    images = [cv2.cvtColor(lens.expose(image, rng), cv2.COLOR_BGR2RGB) for image in (previous, current)]
    return DrawnPair(np.stack(images), ids > 0)
