"""ROS 2 through rclpy: a real node; messages are CDR bytes, which rclpy sends and hands over as they are."""

import importlib
import threading
import uuid
from typing import Any, Literal

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from engine.errors import SourceError
from ros_bridge.backends.base import Options, Received
from ros_bridge.topics import Qos


def message_class(type_name: str) -> Any:
    """The class of a ROS message.

    Raises:
        SourceError: its package is not part of this ROS installation.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        deb = f"ros-<distribution>-{package.replace('_', '-')}"
        raise SourceError(f"{type_name} is not installed: apt-get install {deb}") from None


def profile(qos: Qos) -> QoSProfile:
    """Quality of service in rclpy's words."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if qos.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos.transient_local else DurabilityPolicy.VOLATILE,
    )


class RclpyWriter:
    """One publisher of a node."""

    def __init__(self, publisher: Any, latched: bool) -> None:
        self._publisher = publisher
        self._latched = latched

    def wanted(self) -> bool:
        return self._latched or self._publisher.get_subscription_count() > 0

    def write(self, data: bytes) -> None:
        self._publisher.publish(data)


class RclpyBackend:
    """A ROS 2 node, spun by a thread of its own; ROS_DOMAIN_ID and RMW_IMPLEMENTATION apply as always."""

    name = "rclpy"
    generation: Literal[1, 2] = 2

    def __init__(self, options: Options) -> None:
        # Signals stay ours, so that Ctrl-C ends the bridge in its own order.
        rclpy.init(args=None, domain_id=options.domain, signal_handler_options=SignalHandlerOptions.NO)
        suffix = f"_{uuid.uuid4().hex[:8]}" if options.anonymous else ""
        self._node = rclpy.create_node(options.node + suffix)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="rclpy", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def advertise(self, topic: str, type_name: str, qos: Qos) -> RclpyWriter:
        publisher = self._node.create_publisher(message_class(type_name), topic, profile(qos))
        return RclpyWriter(publisher, qos.transient_local)

    def subscribe(self, topic: str, type_name: str, qos: Qos, received: Received) -> None:
        self._node.create_subscription(message_class(type_name), topic, received, profile(qos), raw=True)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown()
