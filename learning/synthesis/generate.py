"""Turns random scenes into samples; sample i of a seed is always the same."""

import numpy as np

from engine.perceive.motion import MotionEstimator
from learning.synthesis.assets import Library
from learning.synthesis.compose import draw_composite, draw_still
from learning.synthesis.light import Light
from learning.synthesis.piles import draw_pile
from learning.synthesis.render import Lens, render
from learning.synthesis.sample import Kind, Origin, Sample

SHARE_COMPOSITE = 0.62
SHARE_STILL = 0.14
"""The rest are piles."""

_STILL_WITH_MOTION = 0.35
"""Stills and piles that come as two exposures of a standing scene: motion input present, nothing moves."""

_MIN_VISIBLE_PX = 120


def pair_features(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Motion features float32 [5, 128, 224] of two uint8 [256, 448, 3] BGR frames, by the engine's estimator."""
    estimator = MotionEstimator()
    estimator.step(previous)
    motion = estimator.step(current)
    assert motion is not None
    return motion.features


def make_sample(library: Library, seed: int, index: int, held_out: bool = False) -> Sample:
    """Sample `index` of `seed`; held-out samples draw on scenes and cut-outs of their own."""
    rng = np.random.default_rng([seed, index, int(held_out)])
    choice = rng.random()
    if choice < SHARE_COMPOSITE:
        stage, kinds, origin = draw_composite(rng, library, held_out)
    elif choice < SHARE_COMPOSITE + SHARE_STILL:
        stage, kinds, origin = draw_still(rng, library, held_out)
    else:
        stage, kinds, origin = draw_pile(rng, library, held_out)
    static_scene = not (kinds == Kind.MOVING).any() and origin != Origin.COMPOSITE
    pair = not static_scene or rng.random() < _STILL_WITH_MOTION
    previous, current, ids = render(stage, pair)
    lens, light = Lens.draw(rng), Light.draw(rng)
    current = lens.expose(light.apply(current, previous=False), rng)
    motion = None
    if previous is not None:
        motion = pair_features(lens.expose(light.apply(previous, previous=True), rng), current)
    visible = np.bincount(ids.ravel(), minlength=len(kinds))
    kinds = kinds.copy()
    kinds[(visible > 0) & (visible < _MIN_VISIBLE_PX) & (kinds > 0)] = Kind.UNSURE
    kinds[visible == 0] = Kind.ABSENT
    kinds[0] = Kind.ABSENT
    return Sample(np.ascontiguousarray(current[..., ::-1]), motion, ids, kinds, origin)
