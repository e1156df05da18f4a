"""How bytes get onto a ROS graph: one file per way, chosen by `open_backend`."""

import importlib.util
import logging
import os
from collections.abc import Callable

from engine.errors import UsageError
from ros_bridge.backends.base import Backend, Options

__all__ = ["NAMES", "Backend", "Options", "open_backend"]

_log = logging.getLogger("unseen.ros")

NAMES = ("rclpy", "rospy", "zenoh", "cyclonedds")


def open_backend(name: str, options: Options) -> Backend:
    """Open a backend; `auto` takes the first that can work here and logs the choice with its reason.

    Raises:
        UsageError: unknown name, or the backend's package is not installed.
        SourceError: its graph cannot be reached.
    """
    if name == "auto":
        name, why = choose(missing)
        _log.info("backend %s (%s)", name, why)
    elif name not in NAMES:
        raise UsageError(f"backend {name!r} is unknown: auto, {', '.join(NAMES)}")
    elif (problem := missing(name)) is not None and name != "rospy":
        # What rospy lacks may be a master only, which its backend reports as what it is: an unreachable graph.
        raise UsageError(f"backend {name} cannot be used: {problem}")
    return _open(name, options)


def choose(missing: Callable[[str], str | None]) -> tuple[str, str]:
    """The backend `auto` stands for, and why.

    A ROS installation wins over talking to its network directly; among those that need none, DDS is what ROS 2
    speaks unless RMW_IMPLEMENTATION says Zenoh.

    Args:
        missing: what is missing for a backend, None when it can work.

    Raises:
        UsageError: none can work.
    """
    zenoh_first = "zenoh" in os.environ.get("RMW_IMPLEMENTATION", "")
    order = ("rclpy", "rospy", "zenoh", "cyclonedds") if zenoh_first else ("rclpy", "rospy", "cyclonedds", "zenoh")
    reasons: list[str] = []
    for name in order:
        if (reason := missing(name)) is None:
            return name, "; ".join([*reasons, f"{name}: available"])
        reasons.append(f"{name}: {reason}")
    raise UsageError(f"no backend can be used: {'; '.join(reasons)}; pip install 'unseen-engine[ros]' brings two")


def missing(name: str) -> str | None:
    """What keeps a backend from working on this machine, None when nothing does."""
    if name == "rospy":
        from ros_bridge.backends.rospy import missing as rospy_missing

        return rospy_missing()
    if importlib.util.find_spec(name) is None:
        needed = {"rclpy": "source a ROS 2 installation"}.get(name, "pip install 'unseen-engine[ros]'")
        return f"not installed ({needed})"
    return None


def _open(name: str, options: Options) -> Backend:
    # Imported here: each needs a package that the others do not.
    match name:
        case "rclpy":
            from ros_bridge.backends.rclpy import RclpyBackend

            return RclpyBackend(options)
        case "rospy":
            from ros_bridge.backends.rospy import RospyBackend

            return RospyBackend(options)
        case "zenoh":
            from ros_bridge.backends.zenoh import ZenohBackend

            return ZenohBackend(options)
    from ros_bridge.backends.cyclonedds import CycloneBackend

    return CycloneBackend(options)
