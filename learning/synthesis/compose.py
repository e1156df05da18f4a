"""Draws random scenes: motion composites and real stills."""

import numpy as np

from learning.synthesis.articulation import outline_points
from learning.synthesis.assets import SOURCES, Library, choose
from learning.synthesis.camera import Camera, draw_camera, draw_parallax, log_uniform
from learning.synthesis.cast import (
    Cast,
    add_residents,
    cast_shadow,
    draw_cutout,
    draw_motion,
    draw_mover,
    draw_place,
    draw_view,
    foot_of,
)
from learning.synthesis.near import near_cutout
from learning.synthesis.render import Layer, Stage, similarity, transform
from learning.synthesis.sample import SIZE, Kind, Origin
from learning.synthesis.shapes import Rng
from learning.synthesis.smoke import draw_smoke
from learning.synthesis.water import flood, reflection, wake, wave_field

_IN_PLACE = 0.38
_TRACKING = 0.45
_CHASE = 0.65
"""Tracking cameras behind which the background streams by."""

_PAIR = 0.2
_MERGED = 0.3
"""Pairs, such as a rider and what is ridden, that carry one id."""

_GROUP = 0.14
"""Composites with people, animals or things that go together."""

_WATER, _SMOKE = 0.12, 0.12
_FROZEN = 0.06


def _add_mover(rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, tracked: bool) -> None:
    """A foreign object that moves by itself; sometimes a second one rides on it."""
    rgba, walker = draw_cutout(rng, library, held_out, 0.3)
    roll = rng.normal(0, 0.2) if rng.random() < 0.85 else rng.uniform(0, 2 * np.pi)
    side, centre = log_uniform(rng, 34, 340), None
    if tracked:
        side = log_uniform(rng, 60, 300)
        centre = np.array([SIZE[1], SIZE[0]]) * np.clip(rng.normal(0.5, 0.17, 2), 0.02, 0.98)
    place, centre = draw_place(rng, rgba, side, roll, centre)
    layer, kind = draw_mover(rng, rgba, place, camera, tracked, walker)
    cast_shadow(rng, layer, 0.4)
    cast.add(layer, kind)
    if rng.random() < _PAIR:
        _add_rider(rng, cast, library, layer, kind, centre, side, held_out)


def _add_rider(
    rng: Rng,
    cast: Cast,
    library: Library,
    mount: Layer,
    kind: Kind,
    centre: np.ndarray,
    side_px: float,
    held_out: bool,
) -> None:
    """Something that overlaps `mount` and moves almost like it."""
    rgba, _ = draw_cutout(rng, library, held_out, 0.2)
    at = centre + rng.normal(0, 0.16, 2) * side_px - np.array([0.0, rng.uniform(0, 0.4) * side_px])
    place, _ = draw_place(rng, rgba, side_px * rng.uniform(0.35, 0.95), rng.normal(0, 0.2), at)
    shake = rng.normal(0, 0.7, 2)
    motion = similarity((float(at[0]), float(at[1])), (float(shake[0]), float(shake[1])), rng.normal(0, 0.015), 1.0)
    rider = Layer(rgba, place, motion @ mount.motion, 0, mount.bend)
    cast.add(rider, kind, join=bool(rng.random() < _MERGED))
    if rng.random() < 0.3 and len(cast.layers) > 1:
        # The mount may hide the rider's legs.
        cast.layers[-2:] = cast.layers[:-3:-1]


def _add_group(rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, tracked: bool) -> None:
    """Three to seven objects of like size side by side, overlapping, that move nearly alike: each its own instance."""
    count, side = int(rng.integers(3, 8)), log_uniform(rng, 70, 220)
    middle = np.array([SIZE[1], SIZE[0]]) * rng.uniform(0.3, 0.7, 2)
    together = draw_motion(rng, camera, middle, tracked)
    walkers_only = rng.random() < 0.75
    along = (np.arange(count) - (count - 1) / 2) * side * rng.uniform(0.22, 0.55)
    for x in rng.permutation(along):
        rgba, walker = draw_cutout(rng, library, held_out, 0.0 if walkers_only else 0.3)
        at = middle + np.array([x + rng.normal(0, 0.06) * side, rng.normal(0, 0.1) * side])
        place, _ = draw_place(rng, rgba, side * np.exp(rng.normal(0, 0.12)), rng.normal(0, 0.06), at)
        layer, kind = draw_mover(rng, rgba, place, camera, tracked, walker, together)
        cast_shadow(rng, layer, 0.4)
        cast.add(layer, kind)


def _add_standing(rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, near: bool) -> None:
    """Something fixed to the world: an object on the ground, or (near) a fence, a rock or an object up close."""
    motion = camera.matrix(rng.uniform(0.3, 3.0) if near else 0.0)
    if near and rng.random() < 0.65:
        picture = library.backgrounds[choose(rng, library.background_groups, held_out)]
        rgba, side = near_cutout(rng, picture)
        roll = rng.normal(0, 0.15) + np.pi / 2 * (rng.random() < 0.12)
        cast.add(Layer(rgba, draw_place(rng, rgba, side, roll)[0], motion, 0), Kind.ABSENT)
        return
    rgba, _ = draw_cutout(rng, library, held_out, 0.4)
    layer = Layer(rgba, draw_place(rng, rgba, log_uniform(rng, 30, 260), rng.normal(0, 0.25))[0], motion, 0)
    cast_shadow(rng, layer, 0.3)
    cast.add(layer, Kind.DISTRACTOR if near else Kind.STATIC)


def _add_water(
    rng: Rng, cast: Cast, canvas: np.ndarray, view: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Flood the scene: canvas with water, wave field; movers get reflections and wakes."""
    shore = 0.0 if rng.random() < 0.25 else float(rng.uniform(0.1, 0.65)) * SIZE[0]
    waves = wave_field(rng, shore)
    if rng.random() < 0.75:
        row = transform(view, np.array([SIZE[1] / 2, shore], np.float32))[1] if shore else 0
        canvas = flood(rng, canvas, int(np.clip(row, 0, canvas.shape[0])))
    layers: list[Layer] = []
    for layer in cast.layers:
        if layer.label:
            points = outline_points(layer.rgba, layer.place)
            layer.foot = foot_of(points)
            if rng.random() < 0.65:
                layers.append(reflection(rng, layer, waves))
            if rng.random() < 0.4:
                layers.append(wake(rng, layer, camera.matrix(), float(np.ptp(points, axis=0).max()), waves))
        layers.append(layer)
    cast.layers = layers
    return canvas, waves


def _add_smoke(rng: Rng, cast: Cast, camera: Camera) -> None:
    """One to three clouds, mostly about the foot of something that moves, before or behind it."""
    movers = [n for n, layer in enumerate(cast.layers) if layer.label and cast.kinds[layer.label] == Kind.MOVING]
    for _ in range(int(rng.integers(1, 4))):
        depth, drag = int(rng.integers(0, len(cast.layers) + 1)), np.zeros(2)
        centre, side = rng.uniform(0, 1, 2) * np.array([SIZE[1], SIZE[0]]), log_uniform(rng, 80, 420)
        if movers and rng.random() < 0.75:
            depth = int(rng.choice(movers))
            layer = cast.layers[depth]
            points = outline_points(layer.rgba, layer.place)
            extent = float(np.ptp(points, axis=0).max())
            foot = np.array(layer.foot)
            drag = foot - camera.matrix()[:2] @ np.append(np.linalg.inv(layer.motion)[:2] @ np.append(foot, 1), 1)
            away = drag / max(float(np.hypot(*drag)), 1e-3)
            centre = foot - away * extent * rng.uniform(0, 0.8) + rng.normal(0, 0.12, 2) * extent
            side = max(extent, 60.0) * log_uniform(rng, 0.9, 2.6)
            depth += int(rng.random() < 0.6)
        cloud = draw_smoke(rng, centre, min(side, 500.0), camera.matrix(), drag)
        cast.layers.insert(depth, cloud)
        movers = [n + (n >= depth) for n in movers]


def _focus(ids: np.ndarray) -> np.ndarray | None:
    """Centre of the largest instance in canvas pixels."""
    areas = np.bincount(ids.ravel())[1:]
    if not len(areas) or not areas.any():
        return None
    y, x = np.nonzero(ids == 1 + int(areas.argmax()))
    return np.array([x.mean(), y.mean()])


def draw_composite(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """A camera, moving objects, standing objects, near static layers, sometimes water and smoke."""
    tracked = bool(rng.random() < _TRACKING)
    camera, cast = draw_camera(rng, chase=tracked and rng.random() < _CHASE), Cast()
    frozen = rng.random() < _FROZEN
    if rng.random() < _IN_PLACE:
        scene = choose(rng, library.image_groups, held_out)
        ids = library.instances[scene]
        canvas, view = library.clean[scene], draw_view(rng, _focus(ids) if tracked else None)
        walkers = SOURCES[int(library.sources[scene])] != "coco"
        add_residents(rng, cast, library.images[scene], ids, view, camera, not frozen, tracked, walkers)
        movers = 0 if rng.random() < 0.75 else 1
    else:
        view = draw_view(rng)
        if rng.random() < 0.3:
            canvas = library.clean[choose(rng, library.image_groups, held_out)]
        else:
            canvas = library.backgrounds[choose(rng, library.background_groups, held_out)]
        movers = int(rng.choice([1, 2, 3, 4, 5], p=[0.5, 0.24, 0.14, 0.08, 0.04]))
    canvas = np.asarray(canvas)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.75, 0.18, 0.07]))):
        _add_standing(rng, cast, library, camera, held_out, near=False)
    if not frozen and rng.random() < _GROUP:
        _add_group(rng, cast, library, camera, held_out, tracked)
        movers = min(movers, 1)
    for number in range(0 if frozen else movers):
        _add_mover(rng, cast, library, camera, held_out, tracked and number == 0)
    parallax = draw_parallax(rng, camera)
    if rng.random() < _WATER:
        canvas, waves = _add_water(rng, cast, canvas, view, camera)
        parallax = waves if parallax is None else parallax + waves
    if rng.random() < _SMOKE:
        _add_smoke(rng, cast, camera)
    behind = len(cast.layers)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.38, 0.28, 0.2, 0.14]))):
        _add_standing(rng, cast, library, camera, held_out, near=True)
    near = cast.layers[behind:]
    del cast.layers[behind:]
    for layer in near:
        cast.layers.insert(int(rng.integers(0, len(cast.layers) + 1)), layer)
    exposure = float(rng.uniform(0.3, 0.95)) if rng.random() < (0.4 if tracked else 0.17) else 0.0
    stage = Stage(canvas, view, camera.matrix(), parallax, cast.layers, exposure)
    return stage, cast.kinds, Origin.COMPOSITE


def draw_still(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """A real picture with its instances; the camera is nearly still."""
    scene = choose(rng, library.image_groups, held_out)
    view, camera, cast = draw_view(rng), draw_camera(rng, calm=True), Cast()
    image = np.asarray(library.images[scene])
    add_residents(rng, cast, image, library.instances[scene], view, camera)
    origin = Origin[SOURCES[int(library.sources[scene])].upper()]
    return Stage(image, view, camera.matrix(), None, cast.layers), cast.kinds, origin
