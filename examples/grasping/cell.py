"""The simulated cell: a Franka arm, a tray with things in it, two cameras; every scene follows from its seed."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType

import numpy as np

from engine.errors import SourceError
from examples.grasping.arm import Arm
from examples.grasping.camera import Camera, Picture, noisy_depth, noisy_image
from examples.grasping.grasp import Grasp, Limits
from examples.grasping.poking import Poke
from examples.grasping.things import Family, Thing, random_texture
from examples.grasping.view import View

IMAGE_SIZE = (240, 424)
WORKSPACE = Limits(x_m=(0.41, 0.61), y_m=(-0.15, 0.15))
"""The tray's floor; its height is the world's 0."""

_STEP_S = 1 / 240
_FRAME_STEPS = 20
_WALL_M = (0.008, 0.03)
_ABOVE_M = 0.16
_LIFT_M = 0.14
_HELD_M = 0.06
_SETTLE_STEPS = 120


def load_pybullet() -> tuple[ModuleType, Path]:
    """The module and its folder of models.

    Raises:
        SourceError: not installed.
    """
    try:
        bullet = importlib.import_module("pybullet")
        data = Path(importlib.import_module("pybullet_data").getDataPath())
    except ImportError:
        raise SourceError("pybullet is not installed: pip install -e '.[sim]'") from None
    return bullet, data


class Cell:
    """One scene of the cell; a context manager.

    Args:
        seed: decides everything.
        count: things in the tray.
        family: which things.
        show: told after every 12th of a second of motion; rendering is up to it.

    Raises:
        SourceError: pybullet is not installed.
    """

    def __init__(
        self, seed: int, count: int = 5, family: Family = "mixed", show: Callable[[], None] = lambda: None
    ) -> None:
        self._bullet, self._data = load_pybullet()
        self._show, self._ticks = show, 0
        self._client = self._bullet.connect(self._bullet.DIRECT)
        self._bullet.setAdditionalSearchPath(str(self._data), physicsClientId=self._client)
        self._bullet.setGravity(0, 0, -9.81, physicsClientId=self._client)
        self._bullet.setTimeStep(_STEP_S, physicsClientId=self._client)
        rng = np.random.default_rng([seed, 11])
        self._noise = np.random.default_rng([seed, 12])
        self._build_tray(rng)
        self.arm = Arm(self._bullet, self._client, self._tick)
        self._light = np.array([*rng.uniform(-0.5, 0.5, 2), 1.0])
        self._ambient = float(rng.uniform(0.45, 0.65))
        self._fixed = Camera(self._bullet, self._client, IMAGE_SIZE, 26)
        middle = np.array([sum(WORKSPACE.x_m) / 2, 0, 0])
        self._fixed.look(middle + np.array([0.16, rng.normal(0, 0.01), 0.72]), middle, np.array([-1.0, 0, 0]))
        self._wrist = Camera(self._bullet, self._client, IMAGE_SIZE, 55)
        self._side = Camera(self._bullet, self._client, IMAGE_SIZE, 45)
        self._side.look(np.array([1.0, -0.65, 0.65]), np.array([0.42, 0, 0.16]), np.array([0, 0, 1.0]))
        self.things: list[int] = []
        self._kinds: dict[int, Thing] = {}
        self._fill(rng, count, family)
        self._start = [(self._kinds[body], *self._pose(body)) for body in self.things]

    def __enter__(self) -> "Cell":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bullet.disconnect(self._client)

    def _box(self, half: tuple[float, float, float], at: tuple[float, float, float], texture: int | None) -> None:
        solid = self._bullet.createCollisionShape(self._bullet.GEOM_BOX, halfExtents=half, physicsClientId=self._client)
        look = self._bullet.createVisualShape(self._bullet.GEOM_BOX, halfExtents=half, physicsClientId=self._client)
        body = self._bullet.createMultiBody(0, solid, look, at, physicsClientId=self._client)
        colour = {"rgbaColor": [0.62, 0.6, 0.57, 1]}
        if texture is not None:
            colour = {"rgbaColor": [1, 1, 1, 1], "textureUniqueId": texture}
        self._bullet.changeVisualShape(body, -1, physicsClientId=self._client, **colour)
        self._bullet.changeDynamics(body, -1, lateralFriction=0.7, physicsClientId=self._client)

    def _build_tray(self, rng: np.random.Generator) -> None:
        (x0, x1), (y0, y1) = WORKSPACE.x_m, WORKSPACE.y_m
        cx, cy, hx, hy = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
        thick, high = _WALL_M
        # Plain as trays are, or with a surface.
        plain = rng.random() < 0.5
        texture = None if plain else self._texture(rng)
        self._box((0.9, 0.9, 0.01), (cx, cy, -0.03), self._texture(rng))
        self._box((hx + thick, hy + thick, 0.01), (cx, cy, -0.01), texture)
        for side in (-1, 1):
            self._box((hx + 2 * thick, thick, high / 2), (cx, cy + side * (hy + thick), high / 2), texture)
            self._box((thick, hy, high / 2), (cx + side * (hx + thick), cy, high / 2), texture)

    def _fill(self, rng: np.random.Generator, count: int, family: Family) -> None:
        for number in range(count):
            x = rng.uniform(WORKSPACE.x_m[0] + 0.05, WORKSPACE.x_m[1] - 0.05)
            y = rng.uniform(WORKSPACE.y_m[0] + 0.05, WORKSPACE.y_m[1] - 0.05)
            thing = Thing.draw(self._bullet, self._client, rng, family, self._data)
            turn = self._bullet.getQuaternionFromEuler(rng.uniform(0, 2 * np.pi, 3).tolist())
            self._add(thing, (x, y, 0.08 + 0.07 * number), turn)
        self._settle(4 * _SETTLE_STEPS)

    def _texture(self, rng: np.random.Generator) -> int:
        return random_texture(self._bullet, self._client, rng)

    def _add(self, thing: Thing, at: tuple[float, ...], turn: tuple[float, ...]) -> None:
        body = thing.add(self._bullet, self._client, at, turn)
        self.things.append(body)
        self._kinds[body] = thing

    def restore(self) -> None:
        """Everything as it lay at the start."""
        for body in list(self.things):
            self._remove(body)
        self.arm.place(self.arm.home())
        for thing, at, turn in self._start:
            self._add(thing, at, turn)

    def _settle(self, steps: int) -> None:
        for _ in range(steps):
            self._bullet.stepSimulation(physicsClientId=self._client)
        # What has rolled out of the tray is nobody's task.
        for body in [body for body in self.things if not self._inside(body)]:
            self._remove(body)

    def _inside(self, body: int) -> bool:
        x, y, z = self._pose(body)[0]
        (x0, x1), (y0, y1) = WORKSPACE.x_m, WORKSPACE.y_m
        return x0 < x < x1 and y0 < y < y1 and z > -0.01

    def _remove(self, body: int) -> None:
        self._bullet.removeBody(body, physicsClientId=self._client)
        self.things.remove(body)

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % _FRAME_STEPS == 0:
            self._show()

    def fixed(self) -> Picture:
        """What the fixed camera sees, without noise."""
        return self._fixed.picture(self._light, self._ambient)

    def wrist(self) -> Picture:
        """What the camera at the hand sees, without noise."""
        at, turn = self.arm.tips()
        rotation = np.reshape(self._bullet.getMatrixFromQuaternion(turn.tolist()), (3, 3))
        eye = at + rotation @ np.array([0.06, 0.0, -0.11])
        self._wrist.look(eye, eye + rotation[:, 2], -rotation[:, 0])
        return self._wrist.picture(self._light, self._ambient)

    def side(self) -> Picture:
        """The whole cell, for people."""
        return self._side.picture(self._light, self._ambient)

    @property
    def view(self) -> View:
        """Calibration of the fixed camera."""
        return self._fixed.view

    def truth(self, picture: Picture) -> np.ndarray:
        """Label map uint16 [h, w] of the things in a picture, 0 = none."""
        labels = np.zeros(picture.bodies.shape, np.uint16)
        for number, body in enumerate(self.things, 1):
            labels[picture.bodies == body] = number
        return labels

    def noisy(self, picture: Picture) -> np.ndarray:
        """The image of a picture as the sensor gives it."""
        return noisy_image(self._noise, picture.image)

    def sensed_depth(self, picture: Picture) -> np.ndarray:
        """The depth of a picture as the sensor gives it."""
        return noisy_depth(self._noise, picture.depth)

    def grasp(self, grasp: Grasp) -> bool:
        """Go down, close, lift; True when a thing was held at the end. It is taken out of the tray then."""
        tips = np.array([grasp.x, grasp.y, grasp.z])
        above = tips + _up(_ABOVE_M)
        self.arm.open(grasp.opening_m + 0.004)
        self.arm.transit(self.arm.solve(above, grasp.angle), 4, self._show)
        heights = {body: self._height(body) for body in self.things}
        self.arm.straight(tips, grasp.angle, 120)
        self.arm.wait(10)
        self.arm.close()
        self.arm.wait(80)
        self.arm.straight(tips + _up(_LIFT_M), grasp.angle, 140)
        self.arm.wait(40)
        held = [body for body in self.things if self._height(body) > heights[body] + _HELD_M and self.arm.holds(body)]
        for body in held:
            self._remove(body)
        self._leave()
        return bool(held)

    def poke(self, poke: Poke) -> None:
        """Push along a line with closed fingers."""
        start, end = np.array([poke.x0, poke.y0, poke.z]), np.array([poke.x1, poke.y1, poke.z])
        # The breadth of the fingers across the push.
        angle = float(np.arctan2(end[1] - start[1], end[0] - start[0]) + np.pi / 2) % np.pi
        self.arm.close()
        self.arm.transit(self.arm.solve(start + _up(_ABOVE_M), angle), 4, self._show)
        self.arm.straight(start, angle, 80)
        self.arm.straight(end, angle, max(100, round(float(np.linalg.norm(end - start)) * 1600)))
        self.arm.straight(end + _up(_ABOVE_M), angle, 80)
        self._leave()

    def _leave(self) -> None:
        self.arm.open()
        self.arm.transit(self.arm.home(), 4, self._show)
        self._settle(_SETTLE_STEPS)

    def _pose(self, body: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        at, turn = self._bullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
        return tuple(at), tuple(turn)

    def _height(self, body: int) -> float:
        return self._pose(body)[0][2]


def _up(height_m: float) -> np.ndarray:
    return np.array([0.0, 0.0, height_m])
