"""Draws random scenes: motion composites, real stills and piles of cut-outs."""

import cv2
import numpy as np

from learning.synthesis.assets import CANVAS, SOURCES, Library, choose
from learning.synthesis.camera import Camera, draw_camera, draw_parallax, log_uniform
from learning.synthesis.render import Layer, Stage, bend_field, similarity, transform
from learning.synthesis.sample import MAX_INSTANCES, SIZE, Kind, Origin
from learning.synthesis.shapes import SIDE_PX, Rng, surface

_IN_PLACE = 0.38
_TRACKING = 0.45
_MIN_RELATIVE_PX = 0.8
"""Mean motion against the background below which an object counts as not moving: half a pixel of flow."""

_LAST_ID = MAX_INSTANCES - 1


class Cast:
    """Layers of one stage and the kinds of their ids."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.kinds = np.zeros(MAX_INSTANCES, np.uint8)
        self._next = 1

    def add(self, layer: Layer, kind: Kind) -> None:
        """Put a layer in front of the others; kind ABSENT makes it background."""
        if kind != Kind.ABSENT:
            if self._next > _LAST_ID:
                return
            layer.label = self._next
            self.kinds[self._next] = kind
            self._next += 1
        self.layers.append(layer)


def _view(rng: Rng) -> np.ndarray:
    """Frame pixel -> canvas pixel: a window of random size, place and slight roll, sometimes mirrored."""
    scale = CANVAS[1] / SIZE[1] / rng.uniform(1.04, 1.5)
    room = np.array([CANVAS[1] - scale * SIZE[1], CANVAS[0] - scale * SIZE[0]])
    corner = rng.uniform(0.04, 0.96, 2) * room
    roll = rng.normal(0, 0.03)
    out = similarity((CANVAS[1] / 2, CANVAS[0] / 2), (0, 0), roll, 1.0)
    out = out @ np.array([[scale, 0, corner[0]], [0, scale, corner[1]], [0, 0, 1]])
    return out @ _mirror() if rng.random() < 0.5 else out


def _mirror() -> np.ndarray:
    return np.array([[-1.0, 0, SIZE[1] - 1], [0, 1, 0], [0, 0, 1]])


def _object_motion(rng: Rng, camera: Camera, centre: np.ndarray, tracked: bool) -> np.ndarray:
    local = camera.local_shift(centre)
    if tracked and np.hypot(*local) > 1.2:
        shift = rng.normal(0, 0.7, 2)
    else:
        speed, direction = log_uniform(rng, 1.0, 20.0), rng.uniform(0, 2 * np.pi)
        shift = local + speed * np.array([np.cos(direction), np.sin(direction) * 0.7])
    angle = rng.normal(0, 0.03) if rng.random() < 0.5 else 0.0
    scale = np.exp(rng.normal(0, 0.015))
    return similarity((float(centre[0]), float(centre[1])), (float(shift[0]), float(shift[1])), angle, float(scale))


def _moves(motion: np.ndarray, camera: Camera, box: np.ndarray) -> bool:
    """Whether a layer with corners `box` [4, 2] moves against the background around it."""
    points = np.concatenate([box, box.mean(axis=0, keepdims=True)]).astype(np.float32)
    relative = transform(motion, points) - transform(camera.matrix(), points)
    return float(np.hypot(relative[:, 0], relative[:, 1]).mean()) >= _MIN_RELATIVE_PX


def _placed(rng: Rng, rgba: np.ndarray, side_px: float, roll: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random place of a cut-out: frame -> cut-out matrix, its centre [2] and corners [4, 2] in the frame."""
    h, w = rgba.shape[:2]
    scale = side_px / max(h, w)
    stretch = np.exp(rng.normal(0, 0.08))
    centre = np.array([rng.uniform(0.02, 0.98) * SIZE[1], rng.uniform(0.05, 0.95) * SIZE[0]])
    flip = -1.0 if rng.random() < 0.5 else 1.0
    c, s = np.cos(roll), np.sin(roll)
    to_frame = np.array(
        [[c * flip * scale * stretch, -s * scale, 0], [s * flip * scale * stretch, c * scale, 0], [0, 0, 1.0]]
    )
    to_frame[:2, 2] = centre - to_frame[:2, :2] @ np.array([w / 2, h / 2])
    corners = transform(to_frame, np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32))
    return np.linalg.inv(to_frame), centre, corners


def _any_cutout(rng: Rng, library: Library, held_out: bool, shapes: float) -> np.ndarray:
    start, end = (library.shapes_from, len(library.offsets)) if rng.random() < shapes else (0, library.shapes_from)
    rgba = library.cutout(choose(rng, end, held_out, start))
    if rng.random() < 0.3:
        rgba = rgba.copy()
        gain = np.exp(rng.normal(0, 0.25, 3)) if rng.random() < 0.5 else np.exp(rng.normal(0, 0.4)) * np.ones(3)
        rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8)
    return rgba


def _shadow(rng: Rng, probability: float) -> dict[str, object]:
    if rng.random() >= probability:
        return {}
    return {
        "shadow": float(rng.uniform(0.15, 0.65)),
        "shadow_shift": (float(rng.normal(0, 6)), float(rng.uniform(0, 12))),
    }


def _pasted(rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, tracked: bool) -> None:
    """A foreign object that moves by itself."""
    rgba = _any_cutout(rng, library, held_out, 0.4)
    roll = rng.normal(0, 0.25) if rng.random() < 0.8 else rng.uniform(0, 2 * np.pi)
    place, centre, corners = _placed(rng, rgba, log_uniform(rng, 34, 340), roll)
    motion = _object_motion(rng, camera, centre, tracked)
    bend = bend_field(rng, rng.uniform(0.2, 3.0)) if rng.random() < 0.6 else None
    kind = Kind.MOVING if _moves(motion, camera, corners) else Kind.STATIC
    cast.add(Layer(rgba, place, motion, 0, bend, **_shadow(rng, 0.35)), kind)  # type: ignore[arg-type]


def _standing(rng: Rng, cast: Cast, library: Library, camera: Camera, held_out: bool, near: bool) -> None:
    """Something fixed to the world: an object on the ground, or (near) a pole, a mound or an object up close."""
    depth = rng.uniform(0.3, 1.8) if near else 0.0
    motion = camera.matrix(depth)
    if near and rng.random() < 0.5:
        picture = library.backgrounds[choose(rng, len(library.backgrounds), held_out)]
        colour = surface(rng, (SIDE_PX, SIDE_PX), picture)
        alpha = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        width = SIDE_PX * rng.uniform(0.04, 0.3) if rng.random() < 0.6 else SIDE_PX * 0.8
        low = int((SIDE_PX - width) / 2)
        alpha[2:-2, low : SIDE_PX - low] = 255
        place, _, _ = _placed(rng, colour, rng.uniform(200, 600), rng.normal(0, 0.2) + np.pi / 2 * (rng.random() < 0.2))
        cast.add(Layer(np.dstack([colour, alpha]), place, motion, 0), Kind.ABSENT)
        return
    rgba = _any_cutout(rng, library, held_out, 0.4)
    place, _, _ = _placed(rng, rgba, log_uniform(rng, 30, 260), rng.normal(0, 0.25))
    cast.add(Layer(rgba, place, motion, 0, **_shadow(rng, 0.3)), Kind.DISTRACTOR if near else Kind.STATIC)  # type: ignore[arg-type]


def _residents(
    rng: Rng,
    cast: Cast,
    library: Library,
    scene: int,
    view: np.ndarray,
    camera: Camera,
    moving: bool,
    tracked: bool,
) -> None:
    """The objects of a real picture, drawn again over their own painted-over holes."""
    ids = library.instances[scene]
    image = library.images[scene]
    for value in np.unique(ids)[1:_LAST_ID]:
        mask = (ids == value).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        alpha = cv2.GaussianBlur(mask * 255, (3, 3), 0)
        y0, y1, x0, x1 = max(y - 3, 0), min(y + h + 3, CANVAS[0]), max(x - 3, 0), min(x + w + 3, CANVAS[1])
        rgba = np.dstack([image[y0:y1, x0:x1], alpha[y0:y1, x0:x1]])
        place = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]]) @ view
        to_frame = np.linalg.inv(view)
        corners = transform(to_frame, np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32))
        motion, kind, bend = camera.matrix(), Kind.STATIC, None
        if moving and (mask.sum() > 600 or len(np.unique(ids)) == 2) and rng.random() < 0.75:
            motion = _object_motion(rng, camera, corners.mean(axis=0), tracked)
            bend = bend_field(rng, rng.uniform(0.2, 3.0)) if rng.random() < 0.6 else None
            kind = Kind.MOVING if _moves(motion, camera, corners) else Kind.STATIC
        cast.add(Layer(rgba, place, motion, 0, bend), kind)


def draw_composite(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """A camera, moving objects, standing objects and near static layers."""
    camera, view, cast = draw_camera(rng), _view(rng), Cast()
    tracked = bool(rng.random() < _TRACKING)
    frozen = rng.random() < 0.06
    if rng.random() < _IN_PLACE:
        scene = choose(rng, len(library.images), held_out)
        canvas = library.clean[scene]
        _residents(rng, cast, library, scene, view, camera, not frozen, tracked)
        movers = 0 if rng.random() < 0.75 else 1
    else:
        if rng.random() < 0.3:
            canvas = library.clean[choose(rng, len(library.clean), held_out)]
        else:
            canvas = library.backgrounds[choose(rng, len(library.backgrounds), held_out)]
        movers = int(rng.choice([1, 2, 3, 4, 5], p=[0.5, 0.24, 0.14, 0.08, 0.04]))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.75, 0.18, 0.07]))):
        _standing(rng, cast, library, camera, held_out, near=False)
    for _ in range(0 if frozen else movers):
        _pasted(rng, cast, library, camera, held_out, tracked)
    behind = len(cast.layers)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.27, 0.18, 0.1]))):
        _standing(rng, cast, library, camera, held_out, near=True)
    near = cast.layers[behind:]
    del cast.layers[behind:]
    for layer in near:
        cast.layers.insert(int(rng.integers(0, len(cast.layers) + 1)), layer)
    stage = Stage(np.asarray(canvas), view, camera.matrix(), draw_parallax(rng, camera), cast.layers)
    return stage, cast.kinds, Origin.COMPOSITE


def draw_still(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """A real picture with its instances; the camera is nearly still."""
    scene = choose(rng, len(library.images), held_out)
    view, camera, cast = _view(rng), draw_camera(rng, calm=True), Cast()
    _residents(rng, cast, library, scene, view, camera, moving=False, tracked=False)
    origin = Origin[SOURCES[int(library.sources[scene])].upper()]
    return (
        Stage(np.asarray(library.images[scene]), view, camera.matrix(), None, cast.layers),
        cast.kinds,
        origin,
    )


def _bin_floor(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """A floor with a rim and glare: it must not be taken for an object."""
    canvas = surface(rng, CANVAS, picture).astype(np.float32)
    floor = surface(rng, CANVAS, picture).astype(np.float32)
    margin = rng.uniform(0.02, 0.22, 4) * np.array([CANVAS[1], CANVAS[0], CANVAS[1], CANVAS[0]])
    quad = np.array(
        [
            [margin[0], margin[1]],
            [CANVAS[1] - margin[2], margin[1]],
            [CANVAS[1] - margin[2], CANVAS[0] - margin[3]],
            [margin[0], CANVAS[0] - margin[3]],
        ]
    ) + rng.normal(0, 8, (4, 2))
    inside = np.zeros(CANVAS, np.uint8)
    cv2.fillPoly(inside, [np.round(quad).astype(np.int32)], 255)
    wall = cv2.GaussianBlur(inside, (0, 0), rng.uniform(3, 18))[..., None] / np.float32(255)
    canvas = np.where(inside[..., None] > 0, floor * (0.45 + 0.55 * wall), canvas)
    glare = np.zeros(CANVAS, np.float32)
    for _ in range(int(rng.integers(0, 4))):
        centre = (int(rng.integers(0, CANVAS[1])), int(rng.integers(0, CANVAS[0])))
        axes = (int(rng.integers(10, 90)), int(rng.integers(5, 50)))
        cv2.ellipse(glare, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(20, 130)), -1)
    return np.clip(canvas + cv2.GaussianBlur(glare, (0, 0), 9)[..., None], 0, 255).astype(np.uint8)


def draw_pile(rng: Rng, library: Library, held_out: bool) -> tuple[Stage, np.ndarray, Origin]:
    """Objects lying on a surface, over one another; sometimes none, sometimes the camera or one object moves."""
    moving = rng.random() < 0.3
    camera = draw_camera(rng) if moving else draw_camera(rng, calm=True)
    view, cast = _view(rng), Cast()
    picture = np.asarray(library.backgrounds[choose(rng, library.surfaces, held_out)])
    choice = rng.random()
    if choice < 0.4:
        canvas = picture
    elif choice < 0.75:
        canvas = _bin_floor(rng, picture)
    else:
        canvas = surface(rng, CANVAS, picture)
    crowded = rng.random() < 0.4
    count = 0 if rng.random() < 0.05 else int(rng.integers(8, 26) if crowded else rng.integers(1, 9))
    typical = log_uniform(rng, 34, 90) if crowded else log_uniform(rng, 40, 200)
    for _ in range(count):
        rgba = _any_cutout(rng, library, held_out, 0.6)
        place, centre, corners = _placed(rng, rgba, typical * np.exp(rng.normal(0, 0.35)), rng.uniform(0, 2 * np.pi))
        motion, kind = camera.matrix(), Kind.STATIC
        if moving and rng.random() < 0.15:
            motion = _object_motion(rng, camera, centre, tracked=False)
            kind = Kind.MOVING if _moves(motion, camera, corners) else Kind.STATIC
        cast.add(Layer(rgba, place, motion, 0, **_shadow(rng, 0.7)), kind)  # type: ignore[arg-type]
    return Stage(canvas, view, camera.matrix(), None, cast.layers), cast.kinds, Origin.PILE
