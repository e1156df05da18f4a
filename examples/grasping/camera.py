"""Simulated cameras: picture, depth with a sensor's faults, and the truth, from pybullet's software rasteriser."""

from dataclasses import dataclass
from types import ModuleType

import cv2
import numpy as np

from examples.grasping.view import View

_NEAR_M, _FAR_M = 0.05, 4.0
_JUMP_M = 0.02
"""Neighbours that differ by more are a depth edge, where stereo and structured light find nothing."""


@dataclass(frozen=True)
class Picture:
    """What a camera sees at one moment.

    Attributes:
        image: uint8 [h, w, 3] BGR.
        depth: float32 [h, w], metres along the axis, exact.
        bodies: int32 [h, w] number of the body seen, -1 for none.
    """

    image: np.ndarray
    depth: np.ndarray
    bodies: np.ndarray


class Camera:
    """A pinhole camera.

    Args:
        size: (h, w) of its images.
        field_deg: vertical field of view.
    """

    def __init__(self, bullet: ModuleType, client: int, size: tuple[int, int], field_deg: float) -> None:
        self._bullet, self._client, self._size = bullet, client, size
        self._lens = bullet.computeProjectionMatrixFOV(field_deg, size[1] / size[0], _NEAR_M, _FAR_M)
        self._focal = size[0] / 2 / np.tan(np.radians(field_deg) / 2)
        self._matrix = bullet.computeViewMatrix([0, 0, 1], [0, 0, 0], [0, 1, 0])

    def look(self, eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> None:
        """Stand at `eye` and look at `target`, world metres."""
        self._matrix = self._bullet.computeViewMatrix(eye.tolist(), target.tolist(), up.tolist())

    @property
    def view(self) -> View:
        """Calibration."""
        to_camera = np.reshape(self._matrix, (4, 4), order="F")
        # OpenGL looks along -z with y up.
        pose = np.linalg.inv(to_camera) @ np.diag([1.0, -1.0, -1.0, 1.0])
        h, w = self._size
        return View(self._size, (self._focal, self._focal), ((w - 1) / 2, (h - 1) / 2), pose)

    def picture(self, light: np.ndarray, ambient: float) -> Picture:
        """Render, `light` is the direction towards the lamp [3]."""
        h, w = self._size
        _, _, rgba, depth, bodies = self._bullet.getCameraImage(
            w,
            h,
            self._matrix,
            self._lens,
            lightDirection=light.tolist(),
            lightAmbientCoeff=ambient,
            lightDiffuseCoeff=1 - ambient,
            lightSpecularCoeff=0.1,
            shadow=1,
            renderer=self._bullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        image = np.reshape(rgba, (h, w, 4))[..., 2::-1].astype(np.uint8)
        buffer = np.reshape(depth, (h, w)).astype(np.float32)
        metres = _FAR_M * _NEAR_M / (_FAR_M - (_FAR_M - _NEAR_M) * buffer)
        return Picture(cv2.GaussianBlur(image, (0, 0), 0.5), metres, np.reshape(bodies, (h, w)).astype(np.int32))


def noisy_image(rng: np.random.Generator, image: np.ndarray, levels: float = 2.0) -> np.ndarray:
    """An image uint8 [h, w, 3] with a sensor's noise."""
    noise = rng.standard_normal(image.shape, np.float32) * levels
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def noisy_depth(rng: np.random.Generator, depth: np.ndarray, deviation_m: float = 0.0015) -> np.ndarray:
    """A depth image float32 [h, w] as a depth camera gives it: noise, and nothing at depth edges (NaN)."""
    noisy = depth + rng.normal(0, deviation_m, depth.shape).astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(depth, square) - cv2.erode(depth, square) > _JUMP_M
    # Not all of an edge is lost.
    noisy[edge & (rng.random(depth.shape) < 0.7)] = np.nan
    return noisy
