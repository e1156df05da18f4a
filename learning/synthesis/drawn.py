"""Moving procedural shapes over procedural surfaces, labelled: needs no pictures, looks less real."""

import cv2
import numpy as np

from learning.synthesis.camera import draw_camera, draw_parallax
from learning.synthesis.generate import pair_features
from learning.synthesis.render import Layer, Lens, Stage, render, similarity
from learning.synthesis.sample import MAX_INSTANCES, SIZE, Kind, Origin, Sample
from learning.synthesis.shapes import shape_cutout, surface

_STILL_ONE_IN = 4
"""Samples without motion: the network must do without now and then."""

_MIN_VISIBLE_PX = 120


def drawn_sample(rng: np.random.Generator, number: int) -> Sample:
    """One scene of one to five shapes that move against the camera; every fourth `number` has no motion input."""
    camera = draw_camera(rng)
    stage = Stage(surface(rng, SIZE, None), np.eye(3), camera.matrix(), draw_parallax(rng, camera))
    for label in range(1, int(rng.integers(2, 6))):
        rgba = shape_cutout(rng, stage.canvas)
        corner = rng.uniform([-20, -20], [SIZE[1] - 100, SIZE[0] - 100])
        place = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1.0]])
        shift = (float(rng.normal(0, 5)), float(rng.normal(0, 3)))
        stage.layers.append(Layer(rgba, place, similarity((SIZE[1] / 2, SIZE[0] / 2), shift, 0.0, 1.0), label))
    previous, current, ids = render(stage, pair=True)
    lens = Lens.draw(rng)
    assert previous is not None
    current = lens.expose(current, rng)
    motion = pair_features(lens.expose(previous, rng), current) if number % _STILL_ONE_IN else None
    visible = np.bincount(ids.ravel(), minlength=MAX_INSTANCES)
    kinds = np.where(visible > 0, np.uint8(Kind.MOVING), np.uint8(Kind.ABSENT))
    kinds[(visible > 0) & (visible < _MIN_VISIBLE_PX)] = Kind.UNSURE
    kinds[0] = Kind.ABSENT
    return Sample(cv2.cvtColor(current, cv2.COLOR_BGR2RGB), motion, ids, kinds, Origin.PILE)
