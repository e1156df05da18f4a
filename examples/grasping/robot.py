"""The robot as its planner sees it: a depth image, a state, and motions to ask for, over HTTP."""

import json
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from examples.grasping.grasp import Grasp, Limits
from examples.grasping.poking import Poke
from examples.grasping.view import View

DEPTH_SCALE_M = 1e-4
"""Of one step of the 16-bit depth image; 0 is unknown."""

_MOTION_S = 1800.0
_ANSWER_S = 30.0


class RobotError(Exception):
    """The robot cannot be reached, or has refused; one line."""


@dataclass(frozen=True, slots=True)
class RobotState:
    """What the robot says of itself.

    Attributes:
        moving: a motion is under way.
        settled_ns: Unix time at which the latest motion had ended and everything lay still.
        left: things still to be grasped in this scene; None where nobody knows, as on a real robot.
        done: the run is over.
    """

    moving: bool
    settled_ns: int
    left: int | None = None
    done: bool = False


class Robot:
    """Client of the cell's service.

    Args:
        url: e.g. http://127.0.0.1:8090.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def state(self) -> RobotState:
        """Raises RobotError when it cannot be reached."""
        return RobotState(**json.loads(self._ask("/state")))

    def depth(self) -> tuple[np.ndarray, View]:
        """The newest depth image, float32 [h, w] metres with NaN where unknown, and the camera's calibration."""
        view = View.read(json.loads(self._ask("/camera")))
        steps = cv2.imdecode(np.frombuffer(self._ask("/depth"), np.uint8), cv2.IMREAD_UNCHANGED)
        depth = steps.astype(np.float32) * DEPTH_SCALE_M
        depth[steps == 0] = np.nan
        return depth, view

    def limits(self) -> Limits:
        """The workspace."""
        fields = json.loads(self._ask("/workspace"))
        return Limits(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})

    def grasp(self, grasp: Grasp, seen_ns: int) -> bool:
        """Grasp and lift; returns whether something was held at the end.

        Args:
            seen_ns: when the picture behind it was taken: the robot refuses what is older than its latest motion.

        Raises:
            RobotError: refused, or not reachable.
        """
        return bool(self._order("/grasp", asdict(grasp), seen_ns)["held"])

    def poke(self, poke: Poke, seen_ns: int) -> None:
        """Push along a line with closed fingers; refused like `grasp`."""
        self._order("/poke", asdict(poke), seen_ns)

    def wait(self, frames: int, seen_ns: int) -> None:
        """Keep still for so many pictures."""
        self._order("/wait", {"frames": frames}, seen_ns)

    def skip(self, seen_ns: int) -> None:
        """Say that nothing in this picture can be grasped."""
        self._order("/skip", {}, seen_ns)

    def _order(self, path: str, fields: dict[str, Any], seen_ns: int) -> dict[str, Any]:
        body = json.dumps({**fields, "seen_ns": seen_ns}).encode()
        answer: dict[str, Any] = json.loads(self._ask(path, body, _MOTION_S))
        return answer

    def _ask(self, path: str, body: bytes | None = None, timeout_s: float = _ANSWER_S) -> bytes:
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, body), timeout=timeout_s) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise RobotError(error.read().decode(errors="replace").strip() or str(error)) from None
        except OSError as error:
            raise RobotError(f"{self._url}{path}: {error}") from None
