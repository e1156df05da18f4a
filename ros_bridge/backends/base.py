"""What every backend offers the bridge: topics to write bytes to, topics to read bytes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from ros_bridge.topics import Qos

Received = Callable[[bytes], None]
"""Called with each message as it came, in a thread of the backend; must return quickly."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to join a graph.

    Attributes:
        node: name of the node; two bridges need two names.
        anonymous: append something unique to the name.
        domain: DDS domain, also the first part of rmw_zenoh's keys.
        connect, listen: Zenoh endpoints, e.g. tcp/localhost:7447 (where rmw_zenoh's router listens).
        keys: how Zenoh keys are written: as rmw_zenoh does, or the plain topic for zenoh-bridge-ros2dds.
    """

    node: str = "unseen_bridge"
    anonymous: bool = False
    domain: int = 0
    connect: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    keys: Literal["rmw_zenoh", "ros2dds"] = "rmw_zenoh"


class Writer(Protocol):
    """One topic to write to."""

    def wanted(self) -> bool:
        """Whether anybody reads the topic now: what nobody reads need not be encoded."""

    def write(self, data: bytes) -> None:
        """Send one message, ready as bytes."""


class Backend(Protocol):
    """A place on a ROS graph.

    Attributes:
        name: as on the command line. generation: of ROS, 1 or 2: which bytes it carries.
    """

    name: str
    generation: Literal[1, 2]

    def advertise(self, topic: str, type_name: str, qos: Qos) -> Writer:
        """Announce that messages of a type will be written to `topic` (an absolute name)."""

    def subscribe(self, topic: str, type_name: str, qos: Qos, received: Received) -> None:
        """Read a topic until `close`."""

    def close(self) -> None:
        """Leave the graph."""
