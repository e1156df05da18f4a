"""ROS 2 over Zenoh without a ROS installation: for rmw_zenoh, or for zenoh-bridge-ros2dds in front of DDS."""

import itertools
import json
import time
from typing import Any, Literal

import zenoh
from zenoh import ext

from engine.errors import SourceError
from ros_bridge import zenoh_keys
from ros_bridge.backends.base import Options, Received
from ros_bridge.topics import Qos

_ROUTER = "tcp/localhost:7447"
"""Where rmw_zenoh's router and zenoh-bridge-ros2dds listen unless told otherwise."""


def session_config(options: Options) -> zenoh.Config:
    """Like rmw_zenoh's own: a peer that finds the others through a router, without multicast."""
    config = zenoh.Config()
    connect = list(options.connect) or ([] if options.listen else [_ROUTER])
    for key, value in (
        ("mode", "peer"),
        ("connect/endpoints", connect),
        ("listen/endpoints", list(options.listen) or ["tcp/localhost:0"]),
        ("scouting/multicast/enabled", False),
        ("timestamping/enabled", True),
    ):
        config.insert_json5(key, json.dumps(value))
    return config


class ZenohWriter:
    """One Zenoh publisher with what rmw_zenoh wants to know about it."""

    def __init__(self, session: zenoh.Session, key: str, token: str, qos: Qos) -> None:
        self._latched = qos.transient_local
        self._gid = zenoh_keys.publisher_gid(token)
        self._numbers = itertools.count(1)
        self._token = session.liveliness().declare_token(token)
        # A latched topic answers late readers from its cache, as ROS's own publishers do.
        self._publisher: Any = (
            ext.declare_advanced_publisher(
                session, key, cache=ext.CacheConfig(max_samples=qos.depth), publisher_detection=True
            )
            if qos.transient_local
            else session.declare_publisher(
                key,
                reliability=zenoh.Reliability.RELIABLE if qos.reliable else zenoh.Reliability.BEST_EFFORT,
                congestion_control=zenoh.CongestionControl.DROP,
            )
        )

    def wanted(self) -> bool:
        return self._latched or bool(self._publisher.matching_status.matching)

    def write(self, data: bytes) -> None:
        attachment = zenoh_keys.attachment(next(self._numbers), time.time_ns(), self._gid)
        self._publisher.put(data, attachment=attachment)


class ZenohBackend:
    """A Zenoh session on a ROS 2 graph.

    Raises:
        SourceError: an endpoint is malformed or cannot be listened on.
    """

    name = "zenoh"
    generation: Literal[1, 2] = 2

    def __init__(self, options: Options) -> None:
        self._options = options
        try:
            self._session = zenoh.open(session_config(options))
        except zenoh.ZError as error:
            endpoints = " ".join((*options.connect, *options.listen)) or _ROUTER
            raise SourceError(f"Zenoh session with {endpoints} cannot be opened: {error}") from None
        self._zid = str(self._session.zid())
        self._numbers = itertools.count(1)
        self._node = options.node + (f"_{self._zid[:8]}" if options.anonymous else "")
        token = zenoh_keys.node_token(self._zid, self._node, options.domain)
        self._keep: list[Any] = [self._session.liveliness().declare_token(token)]

    def advertise(self, topic: str, type_name: str, qos: Qos) -> ZenohWriter:
        key = self._key(topic, type_name, zenoh_keys.topic_key)
        return ZenohWriter(self._session, key, self._announcement("MP", topic, type_name, qos), qos)

    def subscribe(self, topic: str, type_name: str, qos: Qos, received: Received) -> None:
        key = self._key(topic, type_name, zenoh_keys.reading_key)
        token = self._announcement("MS", topic, type_name, qos)
        self._keep.append(self._session.liveliness().declare_token(token))
        self._keep.append(self._session.declare_subscriber(key, lambda sample: received(sample.payload.to_bytes())))

    def _key(self, topic: str, type_name: str, full: Any) -> str:
        if self._options.keys == "ros2dds":
            return zenoh_keys.plain_key(topic)
        return str(full(topic, type_name, self._options.domain))

    def _announcement(self, kind: Literal["MP", "MS"], topic: str, type_name: str, qos: Qos) -> str:
        return zenoh_keys.end_token(
            self._zid, self._node, self._options.domain, next(self._numbers), kind, topic, type_name, qos
        )

    def close(self) -> None:
        self._keep.clear()
        self._session.close()  # type: ignore[no-untyped-call]  # its stub forgot the return type
