"""Pairs of frames of drawn scenes: shapes that move against the camera over surfaces; no picture, no label needed."""

from dataclasses import dataclass

import cv2
import numpy as np

from learning.synthesis.camera import draw_camera, draw_parallax
from learning.synthesis.render import Layer, Lens, Stage, render, similarity, transform
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import shape_cutout, surface


@dataclass(frozen=True)
class DrawnPair:
    """Two frames of one scene.

    Attributes:
        images: uint8 [2, 256, 448, 3] RGB, earlier and later.
        foreground: bool [256, 448], the shapes in the later one.
        flow: float32 [256, 448, 2], (dx, dy) in pixels from the later frame to the earlier one; exact where the scene
            is flat.
    """

    images: np.ndarray
    foreground: np.ndarray
    flow: np.ndarray


def drawn_pair(rng: np.random.Generator, *, flat: bool = False) -> DrawnPair:
    """One scene of one to three shapes seen twice by a moving camera.

    Args:
        flat: the ground has no relief, so that its flow is that of the camera.
    """
    camera = draw_camera(rng)
    parallax = None if flat else draw_parallax(rng, camera)
    stage = Stage(surface(rng, SIZE, None), np.eye(3), camera.matrix(), parallax)
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
    x, y = np.meshgrid(np.arange(SIZE[1], dtype=np.float32), np.arange(SIZE[0], dtype=np.float32))
    grid = np.stack([x, y], axis=-1)
    flow = transform(np.linalg.inv(stage.camera), grid) - grid
    for layer in stage.layers:
        seen = ids == layer.label
        flow[seen] = (transform(np.linalg.inv(layer.motion), grid) - grid)[seen]
    return DrawnPair(np.stack(images), ids > 0, flow)
