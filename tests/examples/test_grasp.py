"""Grasps against exact geometry: widths by dense sampling, directions by trying all of them, fingers point by point."""

import numpy as np
import pytest

from examples.grasping.grasp import Grasp, Gripper, Limits, footprint, plan
from tests.examples.trays import LIMITS, ellipse, filled, overhead, prism, rectangle, seen, width_at

GRIPPER = Gripper()
PIXEL_M = 0.0016
"""Of the camera at the height of the tops, rounded up."""


@pytest.mark.parametrize("seed", range(6))
def test_what_is_planned_is_what_is_there_and_nearly_the_narrowest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre, angle = tuple(rng.uniform(-0.05, 0.05, 2)), float(rng.uniform(0, np.pi))
    short = float(rng.uniform(0.025, 0.055))
    long = short * float(rng.uniform(1.4, 2.2))
    outline = rectangle(centre, (long, short), angle) if seed % 2 else ellipse(centre, (long / 2, short / 2), angle)
    view, top = overhead(), float(rng.uniform(0.02, 0.06))
    mask = prism(view, outline, top)
    grasp = plan(seen(view, (mask, top)), mask, LIMITS)
    assert grasp is not None
    body = filled(outline)
    exact = width_at(body, (grasp.x, grasp.y), grasp.angle, GRIPPER.breadth_m)
    assert grasp.width_m == pytest.approx(exact, abs=3 * PIXEL_M)
    every = np.linspace(0, np.pi, 36, endpoint=False)
    narrowest = min(width_at(body, centre, direction, GRIPPER.breadth_m) for direction in every)
    assert grasp.width_m <= 1.12 * narrowest + 3 * PIXEL_M
    assert np.hypot(grasp.x - centre[0], grasp.y - centre[1]) < 0.25 * long
    assert max(0.0, top - GRIPPER.reach_m) - PIXEL_M <= grasp.z < top


@pytest.mark.parametrize("seed", range(4))
def test_fingers_go_down_where_nothing_stands(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    view, top = overhead(), 0.04
    mask = prism(view, rectangle((0.0, 0.0), (0.06, 0.035), 0.0), top)
    others = []
    for _ in range(4):
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.045, 0.06)
        place = (away * np.cos(turn), away * np.sin(turn))
        block = prism(view, rectangle(place, (0.02, 0.02), rng.uniform(0, np.pi)), 0.05)
        others.append(block & ~mask)
    points = seen(view, (mask, top), *((block, 0.05) for block in others))
    grasp = plan(points, mask, LIMITS)
    blocks = points[np.any(others, axis=0)]
    if grasp is None:
        return
    assert _in_the_way(grasp, blocks) <= 2


def _in_the_way(grasp: Grasp, points: np.ndarray) -> int:
    """Points inside the two boxes that the fingers need, one by one."""
    count = 0
    for x, y, z in points:
        u = (x - grasp.x) * np.cos(grasp.angle) + (y - grasp.y) * np.sin(grasp.angle)
        v = (y - grasp.y) * np.cos(grasp.angle) - (x - grasp.x) * np.sin(grasp.angle)
        beside = grasp.opening_m / 2 < abs(u) < grasp.opening_m / 2 + GRIPPER.finger_m
        count += beside and abs(v) < GRIPPER.breadth_m / 2 and z > grasp.z + 0.005
    return count


def test_walls_on_both_sides_of_the_short_axis_turn_the_grasp() -> None:
    view, top = overhead(), 0.04
    mask = prism(view, rectangle((0.0, 0.0), (0.05, 0.04), 0.0), top)
    assert plan(seen(view, (mask, top)), mask, LIMITS).angle == pytest.approx(np.pi / 2, abs=0.2)
    walls = [prism(view, rectangle((0.0, side * 0.035), (0.2, 0.02), 0.0), 0.06) for side in (-1, 1)]
    grasp = plan(seen(view, (mask, top), *((wall & ~mask, 0.06) for wall in walls)), mask, LIMITS)
    assert grasp is not None
    assert min(grasp.angle, np.pi - grasp.angle) < 0.3


def test_what_is_no_object_or_does_not_fit_gets_no_grasp() -> None:
    view = overhead()
    wide = prism(view, rectangle((0.0, 0.0), (0.1, 0.09), 0.4), 0.04)
    assert plan(seen(view, (wide, 0.04)), wide, LIMITS) is None
    box = prism(view, rectangle((0.0, 0.0), (0.05, 0.03), 0.4), 0.04)
    assert plan(seen(view, (box, 0.004)), box, LIMITS) is None, "a picture on the floor"
    assert plan(seen(view, (box, 0.04)), box, Limits(x_m=(0.1, 0.2), y_m=(-0.1, 0.1))) is None, "outside the workspace"
    assert plan(np.full((*view.size, 3), np.nan), box, LIMITS) is None, "no depth there"
    assert plan(seen(view, (box, 0.04)), np.zeros(view.size, bool), LIMITS) is None
    assert plan(seen(view, (box, 0.04)), box, LIMITS) is not None


def test_the_footprint_is_the_exact_one_and_forgives_a_loose_mask() -> None:
    view, top, angle = overhead(), 0.05, 0.7
    outline = rectangle((0.03, -0.02), (0.09, 0.03), angle)
    mask = prism(view, outline, top)
    points = seen(view, (mask, top))
    loose = prism(view, rectangle((0.03, -0.02), (0.11, 0.05), angle), top)
    for given in (mask, loose):
        found = footprint(points, given, LIMITS)
        assert found is not None
        assert found.centroid == pytest.approx([0.03, -0.02], abs=0.002)
        assert found.angle == pytest.approx(angle, abs=0.03)
        assert found.length_m == pytest.approx(0.09, rel=0.1)


def test_points_and_pixels_are_inverse() -> None:
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, rng.normal(size=3)
    view = type(overhead())((12, 16), (20.0, 22.0), (7.1, 5.2), pose)
    again = type(view).read(view.described())
    points = again.points(rng.uniform(0.5, 2.0, view.size))
    for y in range(view.size[0]):
        for x in range(view.size[1]):
            assert view.pixel(points[y, x]) == pytest.approx((x, y), abs=1e-6)
