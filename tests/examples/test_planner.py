"""The planner on real sockets, with a robot that writes down what it is told: stale masks, silence, a new engine."""

import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.scene import Object, Scene
from examples.grasping.freshness import stale
from examples.grasping.grasp import Grasp, Limits
from examples.grasping.planner import Planner
from examples.grasping.robot import RobotError, RobotState
from examples.grasping.view import View
from streaming.publisher import Publisher
from streaming.subscriber import MaskSubscriber
from tests.examples.trays import HEIGHT_M, LIMITS, overhead, prism, rectangle

VIEW = overhead()
MASK = prism(VIEW, rectangle((0.02, 0.01), (0.07, 0.035), 0.5), 0.04)
WAIT_S = 30.0


@dataclass
class Paper:
    """A robot on paper; one box lies in its tray."""

    settled_ns: int = 0
    moving: bool = False
    reachable: bool = True
    grasps: list[Grasp] = field(default_factory=list)
    skipped: int = 0

    def state(self) -> RobotState:
        if not self.reachable:
            raise RobotError("cell: connection refused")
        return RobotState(self.moving, self.settled_ns)

    def limits(self) -> Limits:
        return LIMITS

    def depth(self) -> tuple[np.ndarray, View]:
        depth = np.full(VIEW.size, HEIGHT_M, np.float32)
        depth[MASK] -= 0.04
        return depth, VIEW

    def grasp(self, grasp: Grasp, seen_ns: int) -> bool:
        self.grasps.append(grasp)
        return True

    def skip(self, seen_ns: int) -> None:
        self.skipped += 1


def scene(frame: int, t_capture_ns: int, age: int = 10, shown: bool = True) -> Scene:
    y, x = np.nonzero(MASK)
    box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    thing = Object(id=7, label=1, score=0.8, box=box, area=len(x), age=age, novelty=0.1, foreground=0.9)
    labels = (MASK & shown).astype(np.uint16)
    return Scene(frame, "provisional", labels, (thing,) if shown else (), "fixed", t_capture_ns)


def test_fresh_masks_are_grasped_where_the_box_lies() -> None:
    robot = Paper()
    with Publisher("tcp://127.0.0.1:0") as publisher, _subscriber(publisher) as masks:
        publisher.publish(scene(0, time.time_ns()))
        assert Planner(masks, robot, max_age_s=WAIT_S).step(WAIT_S).deed == "grasped"
    (grasp,) = robot.grasps
    assert (grasp.x, grasp.y) == pytest.approx((0.02, 0.01), abs=0.01)
    assert grasp.width_m == pytest.approx(0.035, abs=0.006)


def test_stale_masks_are_never_acted_on() -> None:
    robot = Paper()
    with Publisher("tcp://127.0.0.1:0") as publisher, _subscriber(publisher) as masks:
        planner = Planner(masks, robot, max_age_s=1.0)
        for frame in range(5):
            publisher.publish(scene(frame, time.time_ns() - round(1.2e9)))
            step = planner.step(WAIT_S)
            assert step.deed == "still"
            assert "ms old, at most 1000 are acted on" in step.reason
    assert not robot.grasps


def test_masks_from_before_the_robot_came_to_rest_are_never_acted_on() -> None:
    robot = Paper(settled_ns=time.time_ns() + round(3600e9))
    with Publisher("tcp://127.0.0.1:0") as publisher, _subscriber(publisher) as masks:
        planner = Planner(masks, robot, max_age_s=WAIT_S)
        publisher.publish(scene(0, time.time_ns()))
        assert "before the robot had come to rest" in planner.step(WAIT_S).reason
        robot.settled_ns, robot.moving = 0, True
        publisher.publish(scene(1, time.time_ns()))
        assert planner.step(WAIT_S).reason == "the robot is moving"
        robot.moving, robot.reachable = False, False
        publisher.publish(scene(2, time.time_ns()))
        assert planner.step(WAIT_S).deed == "still"
    assert not robot.grasps


def test_without_an_engine_the_robot_holds_still_and_goes_on_with_the_next_one() -> None:
    robot = Paper()
    publisher = Publisher("tcp://127.0.0.1:0")
    endpoint = publisher.endpoint
    with MaskSubscriber(endpoint, kind="provisional", source="fixed") as masks:
        planner = Planner(masks, robot, max_age_s=WAIT_S)
        with publisher:
            assert publisher.wait_for_subscriber(WAIT_S)
            publisher.publish(scene(0, time.time_ns()))
            assert planner.step(WAIT_S).deed == "grasped"
        for _ in range(3):
            assert planner.step(0.05).reason == "no masks come"
        assert len(robot.grasps) == 1
        with Publisher(endpoint) as other:
            assert other.wait_for_subscriber(WAIT_S)
            other.publish(scene(0, time.time_ns(), age=0))
            assert planner.step(WAIT_S).deed == "still", "objects of the first frames are not trusted yet"
            other.publish(scene(3, time.time_ns(), age=3))
            assert planner.step(WAIT_S).deed == "grasped"
    assert len(robot.grasps) == 2


def test_a_tray_without_masks_is_given_up_after_a_while() -> None:
    robot = Paper()
    with Publisher("tcp://127.0.0.1:0") as publisher, _subscriber(publisher) as masks:
        planner, deeds = Planner(masks, robot, max_age_s=WAIT_S), []
        for frame in range(15):
            publisher.publish(scene(frame, time.time_ns(), shown=False))
            deeds.append(planner.step(WAIT_S).deed)
    assert deeds == ["still"] * 14 + ["skipped"]
    assert robot.skipped == 1


def test_age_is_measured_from_the_capture() -> None:
    now, state = 10_000_000_000, RobotState(moving=False, settled_ns=0)
    assert stale(scene(0, now - 999_000_000), state, now, 1.0) is None
    assert stale(scene(0, now - 1_001_000_000), state, now, 1.0) is not None


def _subscriber(publisher: Publisher) -> MaskSubscriber:
    masks = MaskSubscriber(publisher.endpoint, kind="provisional", source="fixed")
    assert publisher.wait_for_subscriber(WAIT_S)
    return masks
