"""Names, announcements and attachments by which ROS 2 nodes on Zenoh know each other. Pure functions.

rmw_zenoh (its docs/design.md): data goes to `<domain>/<topic>/<type>/<type hash>` with an attachment of 33 bytes;
every node and topic end is announced by a liveliness token. zenoh-bridge-ros2dds: the bare topic is the key.
"""

import hashlib
import struct
from typing import Literal

from ros_bridge.topics import Qos
from streaming.ros.definitions import dds_type, type_hash

_DEFAULT_DEPTH = 42
_GID_BYTES = 16


def topic_key(topic: str, type_name: str, domain: int) -> str:
    """Key rmw_zenoh publishes `topic` under."""
    return f"{domain}/{topic.strip('/')}/{dds_type(type_name)}/{type_hash(type_name)}"


def reading_key(topic: str, type_name: str, domain: int) -> str:
    """Key that reads `topic` from any publisher: distributions without type hashes write something else there."""
    return f"{domain}/{topic.strip('/')}/{dds_type(type_name)}/*"


def plain_key(topic: str) -> str:
    """Key of `topic` for zenoh-bridge-ros2dds without a namespace of its own."""
    return topic.strip("/")


def node_token(zid: str, node: str, domain: int) -> str:
    """Announces a node; it is number 0 of its session."""
    return f"@ros2_lv/{domain}/{zid}/0/0/NN/%/%/{node}"


def end_token(
    zid: str, node: str, domain: int, number: int, kind: Literal["MP", "MS"], topic: str, type_name: str, qos: Qos
) -> str:
    """Announces a publisher (MP) or a subscription (MS).

    Args:
        number: unique within the session, from 1.
    """
    described = f"{topic.replace('/', '%')}/{dds_type(type_name)}/{type_hash(type_name)}/{qos_text(qos)}"
    return f"@ros2_lv/{domain}/{zid}/0/{number}/{kind}/%/%/{node}/{described}"


def qos_text(qos: Qos) -> str:
    """`reliability:durability:history,depth:deadline:lifespan:liveliness`; what is rmw_zenoh's default stays empty."""
    reliability = "" if qos.reliable else "2"
    durability = "1" if qos.transient_local else ""
    depth = "" if qos.depth == _DEFAULT_DEPTH else str(qos.depth)
    return f"{reliability}:{durability}:,{depth}:,:,:,,"


def publisher_gid(token: str) -> bytes:
    """16 bytes that identify a publisher, made from its token; stable for the publisher's life."""
    return hashlib.blake2b(token.encode(), digest_size=_GID_BYTES).digest()


def attachment(number: int, t_source_ns: int, gid: bytes) -> bytes:
    """What rmw_zenoh expects beside each message: 33 bytes, or the message is dropped.

    Args:
        number: +1 per message of a publisher, from 1. t_source_ns: Unix time of publishing.
    """
    return struct.pack("<qqB", number, t_source_ns, _GID_BYTES) + gid
