"""ROS 1 through rospy: the node is a real one, the messages are bytes that rosbags made."""

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from engine.errors import SourceError
from ros_bridge.backends.base import Options, Received
from ros_bridge.topics import Qos
from streaming.ros.definitions import ros1_definition, ros1_type

_SYSTEM_PATHS = ("/opt/ros/noetic/lib/python3/dist-packages", "/usr/lib/python3/dist-packages")
"""Where ROS 1 packages live: a virtual environment does not see them."""

_BUFFER_BYTES = 2**24  # rospy reads one TCP buffer per message: smaller than an image, it falls behind


def missing() -> str | None:
    """What keeps rospy from working here, None when nothing does."""
    if not _find_rospy():
        return "not installed (apt-get install python3-rospy)"
    import rosgraph

    if not rosgraph.is_master_online():
        return f"no master at {rosgraph.get_master_uri()} (start roscore, or set ROS_MASTER_URI)"
    return None


def _find_rospy() -> bool:
    """Make rospy importable if it is installed for the system's Python only.

    The system's folders go to the end of the path, so that whatever this environment has itself still wins.
    rospy and what it needs are plain Python: it does not matter which version they were installed for.
    """
    if importlib.util.find_spec("rospy") is None and any(os.path.isdir(f"{path}/rospy") for path in _SYSTEM_PATHS):
        # All of them: what rospy itself needs may come from the distribution.
        sys.path.extend(path for path in _SYSTEM_PATHS if os.path.isdir(path) and path not in sys.path)
        importlib.invalidate_caches()
    return importlib.util.find_spec("rospy") is not None


@cache
def raw_message(type_name: str) -> Any:
    """A rospy message class whose only content is the message's bytes."""
    import genpy

    text, md5 = ros1_definition(type_name)

    class RawMessage(genpy.Message):  # type: ignore[misc]  # rospy has no types
        _type = ros1_type(type_name)
        _md5sum = md5
        _full_text = text
        _has_header = False  # rospy would write its counter into the header, which is bytes already
        _slot_types = ("uint8[]",)
        __slots__ = ("data",)

        def __init__(self, data: bytes = b"") -> None:
            self.data = data

        def serialize(self, buffer: Any) -> None:
            buffer.write(self.data)

        def deserialize(self, data: bytes) -> "RawMessage":
            self.data = data
            return self

    return RawMessage


class RospyWriter:
    """One advertised topic."""

    def __init__(self, topic: str, type_name: str, qos: Qos) -> None:
        import rospy

        self._message = raw_message(type_name)
        self._latched = qos.transient_local
        self._closed: type[Exception] = rospy.ROSException
        self._publisher = rospy.Publisher(topic, self._message, latch=qos.transient_local, queue_size=qos.depth)

    def wanted(self) -> bool:
        return self._latched or self._publisher.get_num_connections() > 0

    def write(self, data: bytes) -> None:
        try:
            self._publisher.publish(self._message(data))
        except self._closed:
            raise SourceError(
                "backend rospy: the master has ended this node; a second one of the same name does that (see --node)"
            ) from None


class RospyBackend:
    """A ROS 1 node.

    Raises:
        SourceError: there is no master, or it refuses the node.
    """

    name = "rospy"
    generation: Literal[1, 2] = 1

    def __init__(self, options: Options) -> None:
        if (reason := missing()) is not None:
            raise SourceError(f"backend rospy: {reason}")
        import rospy

        self._rospy = rospy
        try:
            # Signals stay ours, so that Ctrl-C ends the bridge in its own order.
            rospy.init_node(options.node, anonymous=options.anonymous, disable_signals=True)
        except rospy.ROSException as error:
            raise SourceError(f"backend rospy: node {options.node} cannot be started: {error}") from None

    def advertise(self, topic: str, type_name: str, qos: Qos) -> RospyWriter:
        return RospyWriter(topic, type_name, qos)

    def subscribe(self, topic: str, type_name: str, qos: Qos, received: Received) -> None:
        self._rospy.Subscriber(
            topic,
            raw_message(type_name),
            _hand_over(received),
            queue_size=qos.depth,
            buff_size=_BUFFER_BYTES,
            tcp_nodelay=True,
        )

    def close(self) -> None:
        self._rospy.signal_shutdown("closed")


def _hand_over(received: Received) -> Callable[[Any], None]:
    return lambda message: received(message.data)
