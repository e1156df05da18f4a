"""What lies in the tray: random meshes and solids with random surfaces, as pybullet bodies."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import cv2
import numpy as np

from benchmarks.unseen.families import MESHES, Solid, mesh_solid, seen_solid
from learning.synthesis.shapes import Rng, surface

Family = Literal["mixed", "solids", "meshes", "held_out"]
FAMILIES: tuple[Family, ...] = ("mixed", "solids", "meshes", "held_out")
"""Three meshes for one solid; boxes, cylinders, cones and balls; random meshes below number 600; those from 600 on."""

_FIRST_HELD_OUT = 600
_RADIUS_M = (0.035, 0.055)
_WIDEST_M = 0.066
"""Middle extent at most: the gripper opens 8 cm, and what lies flat must fit somehow."""

_MASS_KG = 0.08
_SURFACE_PX = (128, 128)


def random_texture(bullet: ModuleType, client: int, rng: Rng) -> int:
    """Number of a new random texture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "surface.png"
        cv2.imwrite(str(path), surface(rng, _SURFACE_PX, None))
        return int(bullet.loadTexture(str(path), physicsClientId=client))


@dataclass(frozen=True)
class Thing:
    """What a body is made from, so that it can be put back.

    Attributes:
        shape: within radius 1.
        size_m: its radius.
        texture: number of its texture.
    """

    shape: Solid
    size_m: float
    texture: int

    @classmethod
    def draw(cls, bullet: ModuleType, client: int, rng: Rng, family: Family, data: Path) -> "Thing":
        """A random one of a family; `data` is pybullet_data's folder."""
        shape = shape_of(rng, family, data)
        middle = float(np.sort(np.ptp(shape.vertices, axis=0))[1])
        size_m = min(float(rng.uniform(*_RADIUS_M)), _WIDEST_M / middle)
        return cls(shape, size_m, random_texture(bullet, client, rng))

    def add(self, bullet: ModuleType, client: int, at: Sequence[float], turn: Sequence[float]) -> int:
        """A body at a place and attitude (quaternion); its number."""
        corners = (self.shape.vertices * self.size_m).tolist()
        look = bullet.createVisualShape(
            bullet.GEOM_MESH,
            vertices=corners,
            indices=list(range(len(corners))),
            normals=self.shape.normals.tolist(),
            uvs=self.shape.uvs.tolist(),
            physicsClientId=client,
        )
        # Bullet takes the convex hull of a moving mesh.
        hull = bullet.createCollisionShape(bullet.GEOM_MESH, vertices=corners, physicsClientId=client)
        body = int(bullet.createMultiBody(_MASS_KG, hull, look, at, turn, physicsClientId=client))
        bullet.changeVisualShape(body, -1, rgbaColor=[1, 1, 1, 1], textureUniqueId=self.texture, physicsClientId=client)
        bullet.changeDynamics(
            body,
            -1,
            lateralFriction=0.9,
            spinningFriction=0.004,
            rollingFriction=0.0008,
            linearDamping=0.1,
            angularDamping=0.3,
            physicsClientId=client,
        )
        return body


def shape_of(rng: Rng, family: Family, data: Path) -> Solid:
    """A random shape of a family."""
    if family == "solids" or (family == "mixed" and rng.random() < 0.25):
        return seen_solid(rng)
    low, high = {"mixed": (0, MESHES), "meshes": (0, _FIRST_HELD_OUT), "held_out": (_FIRST_HELD_OUT, MESHES)}[family]
    return mesh_solid(data, int(rng.integers(low, high)))
