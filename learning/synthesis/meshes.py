"""Rendered piles of meshes in bins, made once with pybullet when it is installed: exact masks of touching objects."""

import importlib
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from rich.progress import track

from learning.synthesis.shapes import Rng, surface

VIEWS_PER_PILE = 3
"""Pictures of one settled pile, each with its own camera, light and colours."""

_MESHES = 1000
_MOST_ITEMS = 26
_SETTLE_STEPS = 260
_MIN_VISIBLE_PX = 60


@dataclass(frozen=True)
class MeshScene:
    """A rendered pile: image uint8 [h, w, 3] BGR and ids uint8 [h, w], 0 = floor and walls."""

    image: np.ndarray
    ids: np.ndarray


def pybullet_available() -> bool:
    """Whether the optional renderer is installed."""
    return importlib.util.find_spec("pybullet") is not None


def mesh_scenes(rng: Rng, pictures: list[np.ndarray], count: int, size: tuple[int, int]) -> list[MeshScene]:
    """Render `count` pictures of piles with surfaces cut from `pictures`.

    Args:
        size: height, width of every picture.
    """
    bullet = importlib.import_module("pybullet")
    data = Path(importlib.import_module("pybullet_data").getDataPath())
    scenes: list[MeshScene] = []
    client = bullet.connect(bullet.DIRECT)
    try:
        with tempfile.TemporaryDirectory() as folder:
            textures = _write_textures(rng, pictures, Path(folder))
            for _ in track(range(-(-count // VIEWS_PER_PILE)), description="rendering meshes"):
                pile = _Pile(bullet, rng, data, textures)
                scenes.extend(pile.picture(rng, size) for _ in range(VIEWS_PER_PILE))
    finally:
        bullet.disconnect(client)
    return scenes[:count]


def _write_textures(rng: Rng, pictures: list[np.ndarray], folder: Path) -> list[str]:
    paths = []
    for number in range(96):
        picture = pictures[int(rng.integers(0, len(pictures)))]
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), surface(rng, (256, 256), picture))
        paths.append(str(path))
    return paths


class _Pile:
    """Items dropped into a bin until they lie still."""

    def __init__(self, bullet: ModuleType, rng: Rng, data: Path, textures: list[str]) -> None:
        self._bullet = bullet
        self._textures = textures
        bullet.resetSimulation()
        bullet.setGravity(0, 0, -9.8)
        self._half = rng.uniform(0.18, 0.32) * np.array([1.45, 1.0])
        self._fixed = [self._box((*self._half * 3, 0.01), (0, 0, -0.01), 0.0)]
        if rng.random() < 0.75:
            self._add_walls(rng.uniform(0.03, 0.16))
        count = 0 if rng.random() < 0.06 else int(rng.integers(4, _MOST_ITEMS))
        self._items: list[int] = []
        for number in range(count):
            x, y = rng.uniform(-0.8, 0.8, 2) * self._half
            at = (x, y, 0.12 + 0.05 * number)
            turn = bullet.getQuaternionFromEuler(rng.uniform(0, 2 * np.pi, 3).tolist())
            if rng.random() < 0.3:
                sides = rng.uniform(0.03, 0.12, 3) * rng.choice([0.7, 1.0], 3)
                self._items.append(self._box(sides, at, 0.3, turn))
            else:
                mesh = f"{int(rng.integers(0, _MESHES)):03d}"
                path = data / "random_urdfs" / mesh / f"{mesh}.urdf"
                scale = float(rng.uniform(0.8, 1.8))
                self._items.append(bullet.loadURDF(str(path), at, turn, globalScaling=scale))
        for _ in range(_SETTLE_STEPS if count else 0):
            bullet.stepSimulation()

    def _box(
        self,
        half: np.ndarray | tuple[float, ...],
        at: tuple[float, ...],
        mass: float,
        turn: tuple[float, ...] = (0, 0, 0, 1),
    ) -> int:
        sides = [float(v) for v in half]
        solid = self._bullet.createCollisionShape(self._bullet.GEOM_BOX, halfExtents=sides)
        seen = self._bullet.createVisualShape(self._bullet.GEOM_BOX, halfExtents=sides)
        return int(self._bullet.createMultiBody(mass, solid, seen, [float(v) for v in at], turn))

    def _add_walls(self, height: float) -> None:
        wide, deep = self._half
        for sides, at in (
            ((wide, 0.01, height), (0, deep, height)),
            ((wide, 0.01, height), (0, -deep, height)),
            ((0.01, deep, height), (wide, 0, height)),
            ((0.01, deep, height), (-wide, 0, height)),
        ):
            self._fixed.append(self._box(sides, at, 0.0))

    def _paint(self, rng: Rng, body: int, textured: float) -> None:
        """Textures have to be loaded again after every reset, or all piles look the same."""
        colour = rng.uniform(0.03, 0.25) if rng.random() < 0.2 else rng.uniform(0.3, 1.0)
        rgb = np.clip(colour + rng.normal(0, rng.choice([0.04, 0.2]), 3), 0.02, 1)
        texture = -1
        if rng.random() < textured:
            texture = self._bullet.loadTexture(self._textures[int(rng.integers(0, len(self._textures)))])
            rgb = np.clip(rgb + 0.4, 0, 1)
        self._bullet.changeVisualShape(body, -1, rgbaColor=[*rgb.tolist(), 1], textureUniqueId=texture)

    def picture(self, rng: Rng, size: tuple[int, int]) -> MeshScene:
        """One view from above with random colours and light."""
        bullet = self._bullet
        self._paint(rng, self._fixed[0], 0.75)
        material = rng.integers(0, 2**32)
        for body in self._fixed[1:]:
            # The walls of a bin are of one material.
            self._paint(np.random.default_rng(material), body, 0.4)
        for body in self._items:
            self._paint(rng, body, 0.45)
        height, tilt, turn = rng.uniform(0.75, 1.3), rng.uniform(0, 0.45), rng.uniform(0, 2 * np.pi)
        aim = np.array([*(rng.uniform(-0.2, 0.2, 2) * self._half), 0.0])
        eye = aim + height * np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
        up = [float(-np.cos(turn)), float(-np.sin(turn)), 0.0] if tilt > 0.1 else [0.0, 1.0, 0.0]
        view = bullet.computeViewMatrix(eye.tolist(), aim.tolist(), up)
        lens = bullet.computeProjectionMatrixFOV(float(rng.uniform(28, 46)), size[1] / size[0], 0.05, 4.0)
        _, _, rgba, _, bodies = bullet.getCameraImage(
            size[1],
            size[0],
            view,
            lens,
            lightDirection=[*rng.uniform(-0.6, 0.6, 2).tolist(), 1.0],
            lightAmbientCoeff=float(rng.uniform(0.35, 0.65)),
            lightDiffuseCoeff=float(rng.uniform(0.3, 0.6)),
            lightSpecularCoeff=float(rng.uniform(0.0, 0.5)),
            shadow=int(rng.random() < 0.8),
            renderer=bullet.ER_TINY_RENDERER,
        )
        image = np.ascontiguousarray(np.reshape(rgba, (*size, 4)).astype(np.uint8)[..., 2::-1])
        bodies = np.reshape(bodies, size)
        ids = np.zeros(size, np.uint8)
        label = 0
        for body in self._items:
            inside = bodies == body
            # A sliver of an item is not worth an id and may be noise of the rasteriser.
            if inside.sum() >= _MIN_VISIBLE_PX:
                label += 1
                ids[inside] = label
        return MeshScene(cv2.GaussianBlur(image, (0, 0), 0.6), ids)
