"""From a mask and a depth image to a top-down antipodal grasp of a two-finger gripper."""

from dataclasses import dataclass

import numpy as np

_ANGLES = 12
_MIN_POINTS = 25
_MIN_SLAB_POINTS = 8
_SLICES = 4
_MOST_POINTS = 1200
"""Of an object; more would only cost time."""

_SPECK_M = 0.004
"""What is less high than this above the finger tips is noise of the depth camera."""


@dataclass(frozen=True, slots=True)
class Gripper:
    """Sizes of a parallel gripper, metres; the defaults are a Franka hand's.

    Attributes:
        stroke_m: widest opening.
        clearance_m: free way each finger needs beside the object before it closes.
        finger_m: thickness of a finger along the closing direction.
        breadth_m: breadth of a finger across it.
        reach_m: how far below the object's top the tips go.
        floor_gap_m: how far above the floor the tips stay.
    """

    stroke_m: float = 0.08
    clearance_m: float = 0.006
    finger_m: float = 0.012
    breadth_m: float = 0.02
    reach_m: float = 0.03
    floor_gap_m: float = 0.006


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as an object of the workspace.

    Attributes:
        x_m, y_m: the floor's extent, world metres.
        floor_m: its height.
        min_height_m: flatter things are pictures on the floor.
        extent_m: shortest and longest an object may be.
    """

    x_m: tuple[float, float]
    y_m: tuple[float, float]
    floor_m: float = 0.0
    min_height_m: float = 0.012
    extent_m: tuple[float, float] = (0.012, 0.22)


@dataclass(frozen=True, slots=True)
class Grasp:
    """Where the tips go, straight from above.

    Attributes:
        x, y, z: midpoint between the finger tips, world metres.
        angle: of the closing direction about the vertical, radians in [0, pi).
        width_m: of the object between the fingers.
        opening_m: of the fingers while they go down.
        cost: the lower the better: slip of the contacts, width, distance from the centroid.
    """

    x: float
    y: float
    z: float
    angle: float
    width_m: float
    opening_m: float
    cost: float


@dataclass(frozen=True)
class Footprint:
    """An object seen from above.

    Attributes:
        points: float [N, 3], world metres.
        centroid: float [2].
        angle: of the principal (longest) axis, radians in [0, pi).
        length_m: extent along it.
    """

    points: np.ndarray
    centroid: np.ndarray
    angle: float
    length_m: float


def footprint(points: np.ndarray, mask: np.ndarray, limits: Limits) -> Footprint | None:
    """Centroid and principal axis of what a mask bool [h, w] covers of points [h, w, 3]; None when it is no object."""
    covered = points[mask & np.isfinite(points).all(axis=2)]
    if len(covered) < _MIN_POINTS:
        return None
    low, high = np.percentile(covered, (2, 98), axis=0)
    if high[2] - limits.floor_m < limits.min_height_m:
        return None
    # What the mask takes along of the floor would pull the centroid away.
    covered = covered[covered[:, 2] > limits.floor_m + 0.4 * limits.min_height_m]
    if len(covered) < _MIN_POINTS:
        return None
    centroid = covered[:, :2].mean(axis=0)
    inside = limits.x_m[0] < centroid[0] < limits.x_m[1] and limits.y_m[0] < centroid[1] < limits.y_m[1]
    extent = float(np.max((high - low)[:2]))
    if not inside or not limits.extent_m[0] <= extent <= limits.extent_m[1]:
        return None
    _, axes = np.linalg.eigh(np.cov((covered[:, :2] - centroid).T))
    angle = float(np.arctan2(axes[1, 1], axes[0, 1])) % np.pi
    along = (covered[:, :2] - centroid) @ axes[:, 1]
    covered = covered[:: -(-len(covered) // _MOST_POINTS)]
    return Footprint(covered, centroid, angle, float(np.ptp(np.percentile(along, (2, 98)))))


def plan(points: np.ndarray, mask: np.ndarray, limits: Limits, gripper: Gripper | None = None) -> Grasp | None:
    """The best grasp of what a mask covers, or None when nothing there can be grasped.

    Directions all round are tried, at places along the object's principal axis. A grasp is possible where the object
    fits between the fingers and nothing stands where they go down; it is antipodal where both borders run across the
    closing direction.

    Args:
        points: float [h, w, 3] world metres of every pixel, NaN where unknown.
        mask: bool [h, w].
    """
    gripper = gripper or Gripper()
    found = footprint(points, mask, limits)
    if found is None:
        return None
    # Only what rises above the lowest place of the tips can be in a finger's way.
    lowest = limits.floor_m + gripper.floor_gap_m + _SPECK_M
    others = points[~mask & (points[..., 2] > lowest)]
    others = others[np.abs(others[:, :2] - found.centroid).max(axis=1) < found.length_m + gripper.stroke_m]
    axis = np.array([np.cos(found.angle), np.sin(found.angle)])
    reach = min(0.25 * found.length_m, 0.04)
    best: Grasp | None = None
    for step in range(_ANGLES):
        angle = (found.angle + np.pi / 2 + step * np.pi / _ANGLES) % np.pi
        for offset in (0.0, -0.5 * reach, 0.5 * reach, -reach, reach):
            grasp = _across(found, found.centroid + offset * axis, angle, limits, gripper)
            better = grasp is not None and (best is None or grasp.cost < best.cost)
            if grasp is not None and better and not _blocked(others, grasp, gripper):
                best = grasp
    return best


def _across(found: Footprint, centre: np.ndarray, angle: float, limits: Limits, gripper: Gripper) -> Grasp | None:
    """The grasp at a place with a closing direction; None when the object does not fit between the fingers."""
    closing = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-closing[1], closing[0]])
    flat = found.points[:, :2] - centre
    between = np.abs(flat @ across) <= gripper.breadth_m / 2
    if np.count_nonzero(between) < _MIN_SLAB_POINTS:
        return None
    u, v = flat[between] @ closing, flat[between] @ across
    low, high = np.percentile(u, (1, 99))
    width = float(high - low)
    opening = width + 2 * gripper.clearance_m
    if opening > gripper.stroke_m:
        return None
    top = float(np.percentile(found.points[between, 2], 95))
    z = max(limits.floor_m + gripper.floor_gap_m, top - gripper.reach_m)
    x, y = centre + (low + high) / 2 * closing
    shift = float(np.hypot(x - found.centroid[0], y - found.centroid[1])) / max(found.length_m, 0.01)
    cost = _slip(u, v, gripper) + 0.6 * width / gripper.stroke_m + shift
    return Grasp(float(x), float(y), z, float(angle), width, float(opening), float(cost))


def _blocked(others: np.ndarray, grasp: Grasp, gripper: Gripper) -> bool:
    """Whether one of the points [N, 3] stands where a finger goes down."""
    flat = others[:, :2] - (grasp.x, grasp.y)
    c, s = np.cos(grasp.angle), np.sin(grasp.angle)
    u, v = np.abs(flat @ (c, s)), np.abs(flat @ (-s, c))
    half = grasp.opening_m / 2
    finger = (u > half) & (u < half + gripper.finger_m) & (v < gripper.breadth_m / 2)
    # A pixel or two above the tips may be noise of the depth camera.
    return int(np.count_nonzero(finger & (others[:, 2] > grasp.z + _SPECK_M))) > 2


def _slip(u: np.ndarray, v: np.ndarray, gripper: Gripper) -> float:
    """How far both contacts are from antipodal: mean tangent of the angle between border normal and closing direction.

    Below the friction coefficient of finger and object the contact holds (force closure of two fingers).
    """
    slice_of = np.clip(((v / gripper.breadth_m + 0.5) * _SLICES).astype(int), 0, _SLICES - 1)
    filled = [number for number in range(_SLICES) if (slice_of == number).any()]
    if len(filled) < 2:
        return 1.0
    borders = np.array([[u[slice_of == number].min(), u[slice_of == number].max()] for number in filled])
    middles = np.array(filled) - np.mean(filled)
    slopes = middles @ borders / (middles @ middles) / (gripper.breadth_m / _SLICES)
    return float(np.abs(slopes).mean())
