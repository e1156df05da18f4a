"""A calibrated depth camera: which point of the world a pixel shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class View:
    """Intrinsics and pose of a pinhole camera.

    Attributes:
        size: (h, w) of its images.
        focal: (fx, fy), pixels.
        centre: (cx, cy), pixels.
        pose: float64 [4, 4], camera (x right, y down, z forward) to world, metres.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    pose: np.ndarray

    def points(self, depth: np.ndarray) -> np.ndarray:
        """World points float64 [h, w, 3] of a depth image float [h, w] in metres along the axis; NaN stays NaN."""
        y, x = np.mgrid[0 : self.size[0], 0 : self.size[1]]
        rays = np.stack(
            [(x - self.centre[0]) / self.focal[0], (y - self.centre[1]) / self.focal[1], np.ones(self.size)], axis=-1
        )
        return (rays * depth[..., None]) @ self.pose[:3, :3].T + self.pose[:3, 3]

    def pixel(self, point: np.ndarray) -> tuple[float, float]:
        """Image position (x, y) of a world point [3] in front of the camera."""
        x, y, z = (np.asarray(point, float) - self.pose[:3, 3]) @ self.pose[:3, :3]
        return self.focal[0] * x / z + self.centre[0], self.focal[1] * y / z + self.centre[1]

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"size": self.size, "focal": self.focal, "centre": self.centre, "pose": self.pose.tolist()}

    @classmethod
    def read(cls, fields: dict[str, Any]) -> "View":
        """The inverse of `described`."""
        h, w = fields["size"]
        fx, fy = fields["focal"]
        cx, cy = fields["centre"]
        return cls((int(h), int(w)), (float(fx), float(fy)), (float(cx), float(cy)), np.array(fields["pose"], float))
