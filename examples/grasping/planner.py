"""python -m examples.grasping.planner: it knows the mask subscriber and the robot's services, nothing else.

It reads the newest provisional masks, grasps the best-held object, and waits for masks of what is left. Without fresh
masks (the engine was killed, the camera is gone, the robot is moving) it orders nothing, and says why once.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from examples.grasping.freshness import MAX_AGE_S, stale
from examples.grasping.grasp import Grasp, Limits, plan
from examples.grasping.robot import Robot, RobotError
from examples.grasping.view import View
from streaming.subscriber import MaskSubscriber

Deed = Literal["still", "grasped", "missed", "skipped", "done"]

_MIN_AGE_FRAMES = 3
"""An object younger than that may be a flash of the first frames after a start."""

_PATIENCE = 15
"""Fresh scenes without anything to grasp before the planner says so."""

_READ_S = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """What one look at the masks led to.

    Attributes:
        deed: "still" when nothing was ordered.
        reason: why, in words.
    """

    deed: Deed
    reason: str


class Planner:
    """Masks in, grasps out.

    Args:
        masks: subscriber of one source, provisional scenes.
        robot: its services.
        max_age_s: older masks are never acted on.
    """

    def __init__(self, masks: MaskSubscriber, robot: Robot, max_age_s: float = MAX_AGE_S) -> None:
        self._masks, self._robot, self._max_age_s = masks, robot, max_age_s
        self._limits: Limits | None = None
        self._vain = 0

    def step(self, timeout_s: float = _READ_S) -> Step:
        """Wait for masks, and act on them if they are fresh."""
        scene = self._masks.read(timeout_s)
        try:
            state = self._robot.state()
            if state.done:
                return Step("done", "the run is over")
            if scene is None:
                return Step("still", "no masks come")
            reason = stale(scene, state, time.time_ns(), self._max_age_s)
            if reason is not None:
                return Step("still", reason)
            self._limits = self._limits or self._robot.limits()
            masks = [scene.labels == item.label for item in scene.objects if item.age >= _MIN_AGE_FRAMES]
            grasp = self._best(masks, *self._robot.depth())
            if grasp is not None:
                self._vain = 0
                held = self._robot.grasp(grasp, scene.t_capture_ns)
                return Step(
                    "grasped" if held else "missed", f"{grasp.width_m * 1e3:.0f} mm wide, cost {grasp.cost:.2f}"
                )
            self._vain += 1
            if self._vain < _PATIENCE:
                return Step("still", f"nothing to grasp among {len(masks)} masks")
            self._vain = 0
            self._robot.skip(scene.t_capture_ns)
            return Step("skipped", f"nothing to grasp among {len(masks)} masks")
        except RobotError as error:
            return Step("still", str(error))

    def _best(self, masks: list[np.ndarray], depth: np.ndarray, view: View) -> Grasp | None:
        assert self._limits is not None
        points = view.points(depth)
        h, w = view.size
        fitted = (cv2.resize(mask.view(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0 for mask in masks)
        grasps = [grasp for mask in fitted if (grasp := plan(points, mask, self._limits)) is not None]
        return min(grasps, key=lambda grasp: grasp.cost, default=None)

    def run(self, say: Callable[[Step], None]) -> None:
        """Until the robot says that the run is over; `say` is told of deeds, and of every new reason to keep still."""
        last = ""
        while True:
            step = self.step()
            # Ages differ from scene to scene: what counts is the kind of reason.
            kind = "".join(letter for letter in step.reason if not letter.isdigit())
            if step.deed != "still" or kind != last:
                say(step)
            last = kind if step.deed == "still" else ""
            if step.deed == "done":
                return


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.grasping.planner", description=__doc__)
    parser.add_argument("--masks", default="tcp://127.0.0.1:5555", help="where the engine publishes")
    parser.add_argument("--source", default="fixed", help="name of the camera that the depth image belongs to")
    parser.add_argument("--cell", default="http://127.0.0.1:8090", help="the robot's services")
    parser.add_argument("--max-age", type=float, default=MAX_AGE_S, help="seconds; older masks are never acted on")
    options = parser.parse_args(argv)
    with MaskSubscriber(options.masks, kind="provisional", source=options.source) as masks:
        planner = Planner(masks, Robot(options.cell), options.max_age)
        try:
            planner.run(lambda step: print(f"planner: {step.deed}: {step.reason}", file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
