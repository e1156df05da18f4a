"""Masks that are too old to act on, and why."""

from typing import Protocol

from examples.grasping.robot import RobotState

MAX_AGE_S = 1.0
"""Of a picture when the robot begins to move: nothing in the cell moves by itself, but a person may reach in."""


class Stamped(Protocol):
    """The part of a published scene that tells its age."""

    @property
    def t_capture_ns(self) -> int: ...


def stale(scene: Stamped, state: RobotState, now_ns: int, max_age_s: float = MAX_AGE_S) -> str | None:
    """Why a scene must not be acted on, None when it may be.

    Args:
        now_ns: Unix time on the engine's machine.
    """
    if state.moving:
        return "the robot is moving"
    age_s = (now_ns - scene.t_capture_ns) / 1e9
    if age_s > max_age_s:
        return f"masks are {age_s * 1e3:.0f} ms old, at most {max_age_s * 1e3:.0f} are acted on"
    if scene.t_capture_ns < state.settled_ns:
        return (
            f"masks were seen {(state.settled_ns - scene.t_capture_ns) / 1e6:.0f} ms before the robot had come to rest"
        )
    return None
