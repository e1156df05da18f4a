"""What stands on a stage: cut-outs, where they are put and how they move."""

import cv2
import numpy as np

from learning.synthesis.articulation import draw_articulation, mean_shift_px, outline_points
from learning.synthesis.assets import CANVAS, SOURCES, Library, choose
from learning.synthesis.camera import Camera, log_uniform
from learning.synthesis.render import Layer, bend_field, similarity, transform
from learning.synthesis.sample import MAX_INSTANCES, SIZE, Kind
from learning.synthesis.shapes import Rng

LAST_ID = MAX_INSTANCES - 1

_MIN_RELATIVE_PX = 0.8
"""Mean motion against the background below which an object counts as not moving: half a pixel of flow."""

_WALKERS = (SOURCES.index("people"), SOURCES.index("animals"))
_ARTICULATED_WALKERS, _ARTICULATED_OTHERS = 0.5, 0.25
_STANDING_BODY = 0.2
"""Articulated objects of which only the limbs move."""


class Cast:
    """Layers of one stage and the kinds of their ids."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.kinds = np.zeros(MAX_INSTANCES, np.uint8)
        self._next = 1

    def add(self, layer: Layer, kind: Kind, join: bool = False) -> None:
        """Put a layer in front of the others; kind ABSENT makes it background, `join` part of the last instance."""
        if kind != Kind.ABSENT:
            if join and self._next > 1:
                layer.label = self._next - 1
            elif self._next > LAST_ID:
                return
            else:
                layer.label = self._next
                self.kinds[self._next] = kind
                self._next += 1
        self.layers.append(layer)


def draw_view(rng: Rng, focus: np.ndarray | None = None) -> np.ndarray:
    """Frame pixel -> canvas pixel: a window of random size, place and slight roll, sometimes mirrored.

    Args:
        focus: canvas point [2] to bring near the middle of the frame.
    """
    scale = CANVAS[1] / SIZE[1] / rng.uniform(1.04, 1.5)
    window = scale * np.array([SIZE[1], SIZE[0]])
    room = np.array([CANVAS[1], CANVAS[0]]) - window
    corner = rng.uniform(0.04, 0.96, 2) * room
    if focus is not None:
        corner = np.clip(focus - window * (0.5 + rng.normal(0, 0.1, 2)), 0.04 * room, 0.96 * room)
    out = similarity((CANVAS[1] / 2, CANVAS[0] / 2), (0, 0), rng.normal(0, 0.03), 1.0)
    out = out @ np.array([[scale, 0, corner[0]], [0, scale, corner[1]], [0, 0, 1]])
    mirror = np.array([[-1.0, 0, SIZE[1] - 1], [0, 1, 0], [0, 0, 1]])
    return out @ mirror if rng.random() < 0.5 else out


def draw_motion(rng: Rng, camera: Camera, centre: np.ndarray, tracked: bool) -> np.ndarray:
    """Motion of an object about `centre`: nearly none when the camera follows it, else its own."""
    local = camera.local_shift(centre)
    if tracked and np.hypot(*local) > 1.2:
        shift = rng.normal(0, 0.7, 2)
    else:
        speed, direction = log_uniform(rng, 1.0, 20.0), rng.uniform(0, 2 * np.pi)
        shift = local + speed * np.array([np.cos(direction), np.sin(direction) * 0.7])
    angle = rng.normal(0, 0.03) if rng.random() < 0.5 else 0.0
    scale = np.exp(rng.normal(0, 0.015))
    return similarity((float(centre[0]), float(centre[1])), (float(shift[0]), float(shift[1])), angle, float(scale))


def draw_mover(
    rng: Rng,
    rgba: np.ndarray,
    place: np.ndarray,
    camera: Camera,
    tracked: bool,
    walker: bool,
    motion: np.ndarray | None = None,
) -> tuple[Layer, Kind]:
    """A layer with a motion of its own (or nearly `motion`): as a whole, bending, or limb by limb."""
    points = outline_points(rgba, place)
    centre = points.mean(axis=0)
    bend = None
    if motion is None:
        motion = draw_motion(rng, camera, centre, tracked)
    else:
        shift, angle = rng.normal(0, 0.9, 2), rng.normal(0, 0.01)
        motion = (
            similarity((float(centre[0]), float(centre[1])), (float(shift[0]), float(shift[1])), angle, 1.0) @ motion
        )
    if rng.random() < (_ARTICULATED_WALKERS if walker else _ARTICULATED_OTHERS):
        if rng.random() < _STANDING_BODY:
            motion = camera.matrix()
        bend = draw_articulation(rng, points, motion, camera.matrix())
    if rng.random() < 0.6:
        soft = bend_field(rng, float(rng.uniform(0.2, 3.0)))
        bend = soft if bend is None else bend + 0.5 * cv2.resize(soft, bend.shape[1::-1])
    relative = transform(motion, points) - transform(camera.matrix(), points)
    moved = float(np.hypot(relative[:, 0], relative[:, 1]).mean())
    if bend is not None:
        moved = max(moved, mean_shift_px(bend, points) if bend.shape[0] > 16 else 0.0)
    kind = Kind.MOVING if moved >= _MIN_RELATIVE_PX else Kind.STATIC
    layer = Layer(rgba, place, motion, 0, bend)
    layer.foot = foot_of(points)
    return layer, kind


def foot_of(points: np.ndarray) -> tuple[float, float]:
    """Where an object with frame points [n, 2] touches the ground."""
    low = float(np.percentile(points[:, 1], 98))
    bottom = points[points[:, 1] >= low - 3]
    return float(bottom[:, 0].mean()), low


def draw_place(
    rng: Rng, rgba: np.ndarray, side_px: float, roll: float, centre: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Place, anywhere or about `centre`: frame -> cut-out matrix [3, 3], and its centre [2] in the frame."""
    h, w = rgba.shape[:2]
    scale = side_px / max(h, w)
    stretch = np.exp(rng.normal(0, 0.08))
    if centre is None:
        centre = np.array([rng.uniform(0.02, 0.98) * SIZE[1], rng.uniform(0.05, 0.95) * SIZE[0]])
    flip = -1.0 if rng.random() < 0.5 else 1.0
    c, s = np.cos(roll), np.sin(roll)
    to_frame = np.array(
        [[c * flip * scale * stretch, -s * scale, 0], [s * flip * scale * stretch, c * scale, 0], [0, 0, 1.0]]
    )
    to_frame[:2, 2] = centre - to_frame[:2, :2] @ np.array([w / 2, h / 2])
    return np.linalg.inv(to_frame), centre


def draw_cutout(rng: Rng, library: Library, held_out: bool, shapes: float) -> tuple[np.ndarray, bool]:
    """A cut-out, procedural with probability `shapes`, and whether it is of something that walks."""
    start, end = (library.shapes_from, len(library.offsets)) if rng.random() < shapes else (0, library.shapes_from)
    index = start + choose(rng, library.cutout_groups[start:end], held_out)
    rgba = library.cutout(index)
    if rng.random() < 0.3:
        rgba = rgba.copy()
        gain = np.exp(rng.normal(0, 0.25, 3)) if rng.random() < 0.5 else np.exp(rng.normal(0, 0.4)) * np.ones(3)
        rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8)
    return rgba, int(library.origins[index]) in _WALKERS


def cast_shadow(rng: Rng, layer: Layer, probability: float, ground: float = 0.5) -> None:
    """Give a layer a shadow: close behind it, or (`ground`) skewed and flattened on the ground in front of its foot."""
    if rng.random() >= probability:
        return
    layer.shadow = float(rng.uniform(0.15, 0.65))
    layer.shadow_shift = (float(rng.normal(0, 6)), float(rng.uniform(0, 12)))
    if rng.random() < ground:
        layer.foot = foot_of(outline_points(layer.rgba, layer.place))
        flat = float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.6))
        layer.shadow_shape = np.array([[1, -rng.uniform(-1.6, 1.6)], [0, flat]])
        layer.shadow_shift = (0.0, float(rng.uniform(-2, 2)))


def add_residents(
    rng: Rng,
    cast: Cast,
    image: np.ndarray,
    ids: np.ndarray,
    view: np.ndarray,
    camera: Camera,
    moving: bool = False,
    tracked: bool = False,
    walkers: bool = False,
) -> None:
    """Draw the objects of a picture again, over their own painted-over holes or over themselves.

    Args:
        image, ids: uint8 [288, 504, 3] BGR and uint8 [288, 504] instance ids.
    """
    values = np.unique(ids)[1:LAST_ID]
    for value in values:
        mask = (ids == value).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        alpha = cv2.GaussianBlur(mask * 255, (3, 3), 0)
        y0, y1, x0, x1 = max(y - 3, 0), min(y + h + 3, CANVAS[0]), max(x - 3, 0), min(x + w + 3, CANVAS[1])
        rgba = np.dstack([image[y0:y1, x0:x1], alpha[y0:y1, x0:x1]])
        place = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]]) @ view
        if moving and (mask.sum() > 600 or len(values) == 1) and rng.random() < 0.75:
            layer, kind = draw_mover(rng, rgba, place, camera, tracked, walkers)
            cast.add(layer, kind)
        else:
            cast.add(Layer(rgba, place, camera.matrix(), 0), Kind.STATIC)
