"""Draws piles: goods on surfaces and in bins, cut out or rendered from meshes, and empty bins."""

import cv2
import numpy as np

from learning.synthesis.assets import CANVAS, Library, choose
from learning.synthesis.camera import Camera, draw_camera, log_uniform
from learning.synthesis.cast import Cast, add_residents, cast_shadow, draw_cutout, draw_mover, draw_place, draw_view
from learning.synthesis.render import Layer, Stage
from learning.synthesis.sample import SIZE, Kind, Origin
from learning.synthesis.shapes import Rng, smooth_noise, surface
from learning.synthesis.water import reflection

_MESHES = 0.25
_EMPTY = 0.08
_LARGE = 0.3
"""Piles with one or two items that fill a good part of the bin."""

_SHINY = 0.3
_CORNERS = np.array([[0, 0], [CANVAS[1], 0], [CANVAS[1], CANVAS[0]], [0, CANVAS[0]]], float)


def _add_glare(rng: Rng, canvas: np.ndarray, most: int) -> np.ndarray:
    """Soft bright spots and streaks on float canvas [288, 504, 3]."""
    glare = np.zeros(CANVAS, np.float32)
    for _ in range(int(rng.integers(0, most + 1))):
        centre = (int(rng.integers(0, CANVAS[1])), int(rng.integers(0, CANVAS[0])))
        axes = (int(rng.integers(10, 90)), int(rng.integers(4, 50)))
        cv2.ellipse(glare, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(20, 150)), -1)
    return canvas + cv2.GaussianBlur(glare, (0, 0), float(rng.uniform(4, 14)))[..., None]


def _metal(rng: Rng) -> np.ndarray:
    """Brushed sheet metal with blurred mirror images of what hangs above, float32 [288, 504, 3]."""
    base = rng.uniform(60, 190) + rng.normal(0, 5, 3)
    brushed = cv2.GaussianBlur(rng.standard_normal(CANVAS).astype(np.float32), (0, 0), 12, sigmaY=0.7)
    if rng.random() < 0.5:
        brushed = cv2.resize(np.ascontiguousarray(brushed.T), CANVAS[::-1])
    mirrored = smooth_noise(rng, CANVAS, int(rng.integers(2, 6))) * rng.uniform(8, 40)
    if rng.random() < 0.4:
        mirrored += rng.uniform(10, 40) * (smooth_noise(rng, CANVAS, int(rng.integers(3, 8))) > 0.7)
    grain = brushed / max(float(brushed.std()), 1e-6) * rng.uniform(1, 9) + cv2.blur(mirrored, (9, 9))
    return (base + grain[..., None]).astype(np.float32)


def bin_canvas(rng: Rng, picture: np.ndarray, shiny: bool) -> np.ndarray:
    """A bin seen from above, uint8 [288, 504, 3]: surroundings, four walls, a floor, glare; none of it an object."""
    around = surface(rng, CANVAS, picture).astype(np.float32)
    floor = _metal(rng) if shiny else surface(rng, CANVAS, picture).astype(np.float32)
    wall = floor if rng.random() < 0.4 else surface(rng, CANVAS, picture).astype(np.float32)
    size = np.array([CANVAS[1], CANVAS[0]])
    margin = rng.uniform(-0.08, 0.16, (4, 2)) * size
    rim = np.abs(_CORNERS - margin) if rng.random() < 0.5 else np.abs(_CORNERS - margin.mean(axis=0))
    rim = np.where(_CORNERS > 0, np.minimum(rim, _CORNERS + 30), rim) + rng.normal(0, 4, (4, 2))
    vanishing = size * rng.uniform(0.35, 0.65, 2)
    bottom = rim + (vanishing - rim) * rng.uniform(0.08, 0.4)
    out = around
    shades = rng.uniform(0.35, 1.05, 4)
    for number in range(4):
        following = (number + 1) % 4
        quad = np.array([rim[number], rim[following], bottom[following], bottom[number]])
        inside = np.zeros(CANVAS, np.uint8)
        cv2.fillPoly(inside, [np.round(quad).astype(np.int32)], 255)
        out = np.where(inside[..., None] > 0, wall * np.float32(shades[number]), out)
    inside = np.zeros(CANVAS, np.uint8)
    cv2.fillPoly(inside, [np.round(bottom).astype(np.int32)], 255)
    # Corners get less light than the middle of the floor.
    light = cv2.GaussianBlur(inside, (0, 0), float(rng.uniform(3, 18)))[..., None] / np.float32(255)
    out = np.where(inside[..., None] > 0, floor * (0.45 + 0.55 * light), out)
    if rng.random() < 0.6:
        lip = rng.uniform(40, 240, 3).tolist()
        cv2.polylines(out, [np.round(rim).astype(np.int32)], True, lip, int(rng.integers(2, 12)), cv2.LINE_AA)
    return np.clip(_add_glare(rng, out, 6 if shiny else 3), 0, 255).astype(np.uint8)


def _add_items(
    rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, moving: bool, shiny: bool
) -> None:
    crowded = rng.random() < 0.5
    count = int(rng.integers(8, 29) if crowded else rng.integers(1, 9))
    typical = log_uniform(rng, 38, 100) if crowded else log_uniform(rng, 40, 190)
    large = int(rng.integers(1, 3)) if rng.random() < _LARGE else 0
    middle = np.array([SIZE[1], SIZE[0]]) * rng.uniform(0.4, 0.6, 2)
    heaped = rng.random() < 0.5
    for number in range(count):
        side = typical * float(np.exp(rng.normal(0, 0.35)))
        if number < large:
            side = log_uniform(rng, 150, 340)
        rgba, walker = draw_cutout(rng, library, held_out, 0.75)
        centre = middle + rng.normal(0, 0.19, 2) * np.array([SIZE[1], SIZE[0]]) if heaped else None
        place, _ = draw_place(rng, rgba, side, rng.uniform(0, 2 * np.pi), centre)
        layer, kind = Layer(rgba, place, camera.matrix(), 0), Kind.STATIC
        if moving and rng.random() < 0.15:
            layer, kind = draw_mover(rng, rgba, place, camera, False, walker)
        cast_shadow(rng, layer, 0.7, ground=0.15)
        if shiny and rng.random() < 0.6:
            mirrored = reflection(rng, layer, None)
            # The floor is seen from above: its mirror images travel with the items.
            mirrored.motion = layer.motion
            mirrored.place = _below(rng, layer)
            mirrored.rgba[..., 3] //= 2
            cast.add(mirrored, Kind.ABSENT)
        cast.add(layer, kind)


def _below(rng: Rng, layer: Layer) -> np.ndarray:
    """Place of a mirror image that peeks out beside its item."""
    shift = np.eye(3)
    shift[:2, 2] = -rng.normal(0, 9, 2)
    return layer.place @ shift


def draw_pile(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """Objects lying on a surface, over one another; sometimes none, sometimes the camera or one object moves."""
    moving = rng.random() < 0.3
    camera = draw_camera(rng) if moving else draw_camera(rng, calm=True)
    view, cast = draw_view(rng), Cast()
    if len(library.piles) and rng.random() < _MESHES:
        scene = choose(rng, library.pile_groups, held_out)
        canvas = np.asarray(library.piles[scene])
        add_residents(rng, cast, canvas, library.pile_ids[scene], view, camera)
        return Stage(canvas, view, camera.matrix(), None, cast.layers), cast.kinds, Origin.PILE
    picture = np.asarray(library.backgrounds[choose(rng, library.background_groups[: library.surfaces], held_out)])
    shiny = bool(rng.random() < _SHINY)
    choice = rng.random()
    if choice < 0.5:
        canvas = bin_canvas(rng, picture, shiny)
    elif shiny:
        canvas = np.clip(_add_glare(rng, _metal(rng), 5), 0, 255).astype(np.uint8)
    else:
        canvas = picture if choice < 0.8 else surface(rng, CANVAS, picture)
    if rng.random() >= _EMPTY:
        _add_items(rng, cast, library, camera, held_out, moving, shiny)
    return Stage(canvas, view, camera.matrix(), None, cast.layers), cast.kinds, Origin.PILE
