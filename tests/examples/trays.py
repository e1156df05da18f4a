"""Trays without a simulator: prisms on a floor, seen by a camera straight above, with the exact points."""

import cv2
import numpy as np

from examples.grasping.grasp import Limits
from examples.grasping.view import View

LIMITS = Limits(x_m=(-0.2, 0.2), y_m=(-0.15, 0.15))
HEIGHT_M = 0.7


def overhead(size: tuple[int, int] = (240, 320), focal: float = 480.0) -> View:
    """A camera that looks straight down on the origin; world y is up in its picture."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = HEIGHT_M
    return View(size, (focal, focal), ((size[1] - 1) / 2, (size[0] - 1) / 2), pose)


def prism(view: View, outline: np.ndarray, top_m: float) -> np.ndarray:
    """Mask bool [h, w] of a prism's top face with corners [n, 2], world metres."""
    corners = [view.pixel(np.array([x, y, top_m])) for x, y in outline]
    mask = np.zeros(view.size, np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(corners) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask > 0


def seen(view: View, *prisms: tuple[np.ndarray, float]) -> np.ndarray:
    """Points [h, w, 3] of a floor at height 0 with prisms (mask, top), sides not seen."""
    depth = np.full(view.size, HEIGHT_M, np.float32)
    for mask, top_m in prisms:
        depth[mask] = HEIGHT_M - top_m
    return view.points(depth)


def rectangle(centre: tuple[float, float], sides: tuple[float, float], angle: float) -> np.ndarray:
    """Corners [4, 2]; the first side lies along `angle`."""
    c, s = np.cos(angle), np.sin(angle)
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * np.array(sides) / 2
    return half @ np.array([[c, s], [-s, c]]) + centre


def ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float) -> np.ndarray:
    """Corners [60, 2]."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)], axis=1) @ np.array([[c, s], [-s, c]]) + centre


def inside(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points [N, 2] lie in a convex outline of either sense of rotation; bool [N]."""
    a, b = outline, np.roll(outline, -1, axis=0)
    edge = b - a
    side = edge[:, 0] * (points[:, None, 1] - a[:, 1]) - edge[:, 1] * (points[:, None, 0] - a[:, 0])
    return (side >= 0).all(axis=1) | (side <= 0).all(axis=1)


def filled(outline: np.ndarray) -> np.ndarray:
    """Points [N, 2] that fill a convex outline, a millimetre apart."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    grid = np.stack(np.meshgrid(*(np.arange(a, b, 0.001) for a, b in zip(low, high, strict=True))), axis=-1)
    return grid.reshape(-1, 2)[inside(outline, grid.reshape(-1, 2))]


def width_at(body: np.ndarray, at: tuple[float, float], angle: float, breadth_m: float) -> float:
    """Extent along `angle` of those points of `body` that lie within half the breadth of a line through `at`."""
    c, s = np.cos(angle), np.sin(angle)
    u = ((body - at) @ (c, s))[np.abs((body - at) @ (-s, c)) <= breadth_m / 2]
    return float(np.ptp(u)) if len(u) else 0.0
