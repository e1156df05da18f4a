"""The built-in scene: textured things that move, hide each other, stop, leave and return."""

from dataclasses import dataclass

import cv2
import numpy as np

from streaming.sources.demo_backdrop import THEMES, make_pole, paint_backdrop
from streaming.sources.demo_motion import CameraPath, Path, Role
from streaming.sources.demo_sprites import BALL, BIRD, OUTLINES, Sprite, blend, make_sprite, warp_into_box
from streaming.sources.demo_textures import OBJECT_PALETTES, Palette

HORIZON = -0.12  # frame heights below the middle
ROLES: tuple[Role, ...] = ("crosser", "wanderer", "stopper", "stopper", "crosser", "wanderer", "stopper")
# Margins of the world around the view: what pan, zoom and roll can bring into sight at most.
MARGIN_X, MARGIN_Y = 0.32, 0.16
CYCLE_S = 0.9
NOISE_SIGMA = 2.0
NOISE_OFFSET = 8


@dataclass(frozen=True, slots=True)
class Thing:
    """An object or a pole.

    Attributes:
        id: value in the truth; 0 for a pole, which is background.
        depth: draw order; larger is nearer.
    """

    id: int
    sprite: Sprite
    path: Path | None
    depth: float
    scale: float
    place: tuple[float, float] = (0.0, 0.0)
    rolls: bool = False
    casts_shadow: bool = False


class DemoScene:
    """Draws any frame of the scene on its own, as a function of (seed, frame index).

    Args:
        seed: decides everything that is drawn.
        size: (height, width) in pixels.
        fps: frames per second of the scene's time.
        static_camera: True keeps the camera still.
        objects: number of objects; they get the ids 1 ... objects.
    """

    def __init__(
        self, seed: int, size: tuple[int, int], fps: float, *, static_camera: bool = False, objects: int = 6
    ) -> None:
        self.seed, self.size, self.fps = seed, size, fps
        height, width = size
        rng = np.random.default_rng((seed, 0xDE30))
        self._reach = width / height / 2
        self._camera = CameraPath(rng.uniform(0, 2 * np.pi, 4), static_camera)
        world = (round(height * (1 + 2 * MARGIN_Y)), round(height * 2 * (self._reach + MARGIN_X)))
        horizon_px = round(height * (0.5 + MARGIN_Y + HORIZON))
        self._backdrop = paint_backdrop(rng, world, horizon_px, height, THEMES[seed % len(THEMES)])
        # From backdrop pixels to world units.
        self._backdrop_origin = np.array([world[1] / 2, world[0] / 2]) / height
        colours = rng.permutation(len(OBJECT_PALETTES))
        things = [
            self._make_object(rng, number, objects, OBJECT_PALETTES[colours[number % len(colours)]])
            for number in range(objects)
        ]
        things += [self._make_pole(rng, x) for x in (-0.62, 0.5)]
        self._things = sorted(things, key=lambda thing: thing.depth)
        self._shadow = _soft_ellipse(128)
        # Noise that is not redrawn but shifted at random: drawing it would cost more than all the rest.
        tile = rng.normal(0, NOISE_SIGMA, (height + 64, width + 64, 3))
        self._noise = np.clip(np.round(tile) + NOISE_OFFSET, 0, 2 * NOISE_OFFSET).astype(np.uint8)

    def render(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw frame `index`: (image uint8 [H, W, 3] BGR, truth uint16 [H, W] of visible instance ids)."""
        time_s = index / self.fps
        camera = self._camera.matrix(time_s, self.size)
        image = self._draw_backdrop(camera)
        truth = np.zeros(self.size, np.uint16)
        placed = [(thing, *self._place(thing, time_s, camera)) for thing in self._things]
        for thing, _, matrix in placed:
            if thing.casts_shadow:
                self._draw_shadow(image, thing, matrix)
        for thing, picture, matrix in placed:
            hit = warp_into_box(picture, matrix, self.size)
            if hit is not None:
                box, warped = hit
                truth[box][blend(image, box, warped) > 127] = thing.id
        return self._expose(image, index), truth

    def silhouette(self, index: int, object_id: int) -> np.ndarray:
        """The whole outline of an object in frame `index`, as if nothing stood before it; bool [H, W]."""
        time_s = index / self.fps
        camera = self._camera.matrix(time_s, self.size)
        mask = np.zeros(self.size, bool)
        for thing in self._things:
            if thing.id == object_id:
                picture, matrix = self._place(thing, time_s, camera)
                if (hit := warp_into_box(picture, matrix, self.size)) is not None:
                    mask[hit[0]] = hit[1][..., 3] > 127
        return mask

    def _make_object(self, rng: np.random.Generator, number: int, objects: int, palette: Palette) -> Thing:
        kind = number % len(OUTLINES)
        flies = kind == BIRD
        # Lanes from far to near in an order that does not follow the numbers.
        lane = 0.12 + 0.34 * ((number * 5 + 3) % objects) / max(1, objects - 1)
        near = 0.75 + 0.9 * (lane - 0.1)
        lane = float(rng.uniform(-0.12, 0.0)) if flies else lane
        height_px = round(self.size[0] * (0.32 if kind == BALL else rng.uniform(0.4, 0.5)))
        sprite = make_sprite(rng, kind, height_px, palette)
        role = ROLES[number % len(ROLES)]
        path = Path(rng, role, reach=self._reach, lane=lane, outside=0.62, sway=0.12 if flies else 0.03)
        if number >= 4:
            path = path.delayed(float(rng.uniform(2.0, 8.0)))
        depth = 9.0 if flies else lane
        return Thing(number + 1, sprite, path, depth, near, rolls=kind == BALL, casts_shadow=not flies)

    def _make_pole(self, rng: np.random.Generator, where: float) -> Thing:
        height = self.size[0]
        foot = float(rng.uniform(0.2, 0.44))
        thick_px = max(4, round(height * rng.uniform(0.035, 0.06)))
        sprite = make_pole(rng, round(height * (foot + 0.5 + MARGIN_Y)), thick_px)
        x = (where + float(rng.uniform(-0.15, 0.15))) * self._reach
        return Thing(0, sprite, None, foot, 1.0, place=(x, foot), casts_shadow=True)

    def _place(self, thing: Thing, time_s: float, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sprite's picture at `time_s` and the 2x3 transform from its pixels to frame pixels."""
        steps, (anchor_x, anchor_y) = thing.sprite.steps, thing.sprite.anchor_px
        unit = thing.scale / self.size[0]
        if thing.path is None:
            (x, y), facing, tilt, picture = thing.place, 1, 0.0, steps[0]
        else:
            pose = thing.path.at(time_s)
            x, y, facing = pose.x, pose.y, pose.facing
            picture = steps[int(pose.clock / CYCLE_S * len(steps)) % len(steps)]
            tilt = 0.05 * np.sin(2.1 * pose.clock)
            unit *= 1 + 0.08 * np.sin(0.63 * pose.clock)
        linear = unit * np.array([[facing * np.cos(tilt), -np.sin(tilt)], [facing * np.sin(tilt), np.cos(tilt)]])
        pivot = np.array([anchor_x, anchor_y])
        ground = np.array([x, y])
        if thing.rolls:
            # A ball turns about its middle by the way it covers.
            middle = np.array([picture.shape[1] / 2, picture.shape[0] / 2])
            radius = unit * (anchor_y - middle[1])
            turn = x / radius
            linear = unit * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            pivot, ground = middle, ground - np.array([0.0, radius])
        to_world = np.column_stack([linear, ground - linear @ pivot])
        matrix = camera[:, :2] @ to_world
        matrix[:, 2] += camera[:, 2]
        return picture, matrix

    def _draw_backdrop(self, camera: np.ndarray) -> np.ndarray:
        height, width = self.size
        matrix = np.column_stack([camera[:, :2] / height, camera[:, 2] - camera[:, :2] @ self._backdrop_origin])
        return cv2.warpAffine(
            self._backdrop, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def _draw_shadow(self, image: np.ndarray, thing: Thing, matrix: np.ndarray) -> None:
        foot = matrix @ (*thing.sprite.anchor_px, 1.0)
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        if thing.rolls:
            middle = matrix @ (thing.sprite.steps[0].shape[1] / 2, thing.sprite.steps[0].shape[0] / 2, 1.0)
            reach = scale * (thing.sprite.anchor_px[1] - thing.sprite.steps[0].shape[0] / 2)
            foot = middle + np.array([0.0, reach])
        wide = scale * thing.sprite.steps[0].shape[1] * 1.1 / self._shadow.shape[1]
        lay = np.array([[wide, 0, foot[0] - wide * 58], [0, wide * 0.25, foot[1] - wide * 0.25 * 64]], np.float64)
        hit = warp_into_box(self._shadow, lay, self.size)
        if hit is not None:
            blend(image, *hit)

    def _expose(self, image: np.ndarray, index: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, index))
        y, x = rng.integers(0, 64, 2)
        height, width = self.size
        gain = 1 + 0.02 * np.sin(2 * np.pi * index / self.fps / 4.3)
        # The tile holds noise + NOISE_OFFSET, so that it fits unsigned bytes.
        noisy: np.ndarray = cv2.addWeighted(image, gain, self._noise[y : y + height, x : x + width], 1.0, -NOISE_OFFSET)
        return noisy


def _soft_ellipse(side: int) -> np.ndarray:
    """A black sprite whose alpha fades from the middle; uint8 [side, side, 4]."""
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) * 2 / side - 1
    fade = np.clip(1 - np.hypot(x, y), 0, 1)
    sprite = np.zeros((side, side, 4), np.uint8)
    sprite[..., 3] = (150 * fade * fade * (3 - 2 * fade)).astype(np.uint8)
    return sprite
