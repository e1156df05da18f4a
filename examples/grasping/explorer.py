"""A robot that touches things in order to see them better; it knows what the planner knows."""

import time
from dataclasses import dataclass

import cv2
import numpy as np

from examples.grasping.freshness import MAX_AGE_S, stale
from examples.grasping.grasp import Limits, footprint
from examples.grasping.poking import Poke, Policy, choose, doubt, poke_of, poke_place
from examples.grasping.robot import Robot, RobotError
from examples.grasping.view import View
from streaming.subscriber import MaskSubscriber
from streaming.wire import Message

_READ_S = 0.5
_WAIT_FRAMES = 20
"""Pictures a passive robot lets pass for one poke of the others."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was done after one look; `acted` is False when the robot kept still for want of fresh masks."""

    acted: bool
    what: str


class Explorer:
    """Pokes by a policy, one action per fresh scene.

    Args:
        masks: subscriber of one source, provisional scenes.
        policy: how the next thing is chosen.
        rng: for "random", and for where nothing is seen.
    """

    def __init__(
        self,
        masks: MaskSubscriber,
        robot: Robot,
        policy: Policy,
        rng: np.random.Generator,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._masks, self._robot, self._policy, self._rng, self._max_age_s = masks, robot, policy, rng, max_age_s
        self._poked: list[int] = []
        self._limits: Limits | None = None

    def step(self) -> Look:
        """Wait for masks; act when they are fresh."""
        scene = self._masks.read(_READ_S)
        try:
            state = self._robot.state()
            if scene is None:
                return Look(False, "no masks come")
            reason = stale(scene, state, time.time_ns(), self._max_age_s)
            if reason is not None:
                return Look(False, reason)
            self._limits = self._limits or self._robot.limits()
            if self._policy == "passive":
                self._robot.wait(_WAIT_FRAMES, scene.t_capture_ns)
                return Look(True, "waited")
            what, poke = self._target(scene, *self._robot.depth())
            self._robot.poke(poke, scene.t_capture_ns)
            return Look(True, what)
        except RobotError as error:
            return Look(False, str(error))

    def _target(self, scene: Message, depth: np.ndarray, view: View) -> tuple[str, Poke]:
        """An object by the policy; where none is seen a place that deserves a look, or any place."""
        assert self._limits is not None
        points = view.points(depth)
        size = view.size[::-1]
        seen = {}
        for item in scene.objects:
            mask = cv2.resize((scene.labels == item.label).view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            found = footprint(points, mask, self._limits)
            if found is not None:
                seen[item.id] = (item, found)
        chosen = choose(self._policy, [item for item, _ in seen.values()], self._poked, self._rng)
        place = self._unexplained(scene, points) if self._policy == "uncertain" else None
        if place is not None and (chosen is None or place[1] > doubt(seen[chosen][0])):
            x, y = place[0]
            return f"place with priority {place[1]:.2f}", poke_place(x, y, self._limits, self._angle())
        if chosen is None:
            x, y = self._rng.uniform(*self._limits.x_m), self._rng.uniform(*self._limits.y_m)
            return "any place", poke_place(x, y, self._limits, self._angle())
        self._poked.append(chosen)
        item, found = seen[chosen]
        return f"object {chosen}, uncertainty {item.uncertainty:.2f}", poke_of(found, self._limits)

    def _angle(self) -> float:
        return float(self._rng.uniform(0, 2 * np.pi))

    def _unexplained(self, scene: Message, points: np.ndarray) -> tuple[tuple[float, float], float] | None:
        """World position and priority of the first region inside the workspace that no mask explains."""
        assert self._limits is not None
        (x0, x1), (y0, y1) = self._limits.x_m, self._limits.y_m
        for look in scene.look:
            if look.id is None:
                left, top, right, bottom = look.box
                scale = points.shape[0] / scene.frame_size[0]
                x, y, _ = points[round((top + bottom) / 2 * scale) - 1, round((left + right) / 2 * scale) - 1]
                if x0 < x < x1 and y0 < y < y1:
                    return (float(x), float(y)), look.priority
        return None
