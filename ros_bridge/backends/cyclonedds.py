"""ROS 2 over DDS without a ROS installation: Cyclone DDS carries CDR bytes that rosbags made.

The binding would serialise a `sequence<uint8>` element by element; types here keep the whole message as bytes, while
their description, which other DDS programs match against, is that of the ROS message.
"""

import threading
from functools import cache
from typing import Any, Literal

from cyclonedds.core import DDSException, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.core import Qos as DdsQos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct, make_idl_struct
from cyclonedds.idl import types as idl
from cyclonedds.idl.annotations import final
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from rosbags.interfaces import Nodetype

from engine.errors import SourceError
from ros_bridge.backends.base import Options, Received
from ros_bridge.topics import Qos
from streaming.ros.definitions import dds_type, ros2_types

_SCALARS: dict[str, Any] = {
    "bool": bool,
    "octet": idl.uint8,
    "byte": idl.uint8,
    "int8": idl.int8,
    "uint8": idl.uint8,
    "int16": idl.int16,
    "uint16": idl.uint16,
    "int32": idl.int32,
    "uint32": idl.uint32,
    "int64": idl.int64,
    "uint64": idl.uint64,
    "float32": idl.float32,
    "float64": idl.float64,
    "string": str,
}

_PATIENCE_MS = 10
"""How long a write waits for a reliable reader whose backlog is full."""

_TAKE = 16
_POLL_MS = 200
"""How long a reader thread takes at most to notice that it should end."""


@cache
def idl_type(type_name: str) -> type[IdlStruct]:
    """The IDL type of a ROS message, made from its definition: same name, members and extensibility (final)."""
    members = {}
    for field, node in ros2_types().fielddefs[type_name][1]:
        members[f"{field}_" if field == "class" else field] = _member(node)
    name = dds_type(type_name)
    made: type[IdlStruct] = final(make_idl_struct(name.rpartition("::")[2], name.replace("::", "."), members))
    return made


def _member(node: Any) -> Any:
    kind, content = node
    match kind:
        case Nodetype.BASE:
            return _SCALARS[content[0]]
        case Nodetype.NAME:
            return idl_type(content)
    item, length = content
    types: Any = idl  # its brackets are made by a metaclass, which a type checker does not see
    return types.array[_member(item), length] if kind == Nodetype.ARRAY else types.sequence[_member(item)]


@cache
def raw_type(type_name: str) -> Any:
    """The IDL type of a ROS message whose samples are ready bytes: `sample.data`."""
    described: Any = idl_type(type_name)

    class Raw(described):  # type: ignore[misc]  # made at run time
        __idl_typename__ = described.__idl_typename__

        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self, *_: Any, **__: Any) -> bytes:
            return self.data

        @classmethod
        def deserialize(cls, data: bytes, *_: Any, **__: Any) -> "Raw":
            return cls(data)

    Raw.__idl__ = described.__idl__
    return Raw


def dds_qos(qos: Qos) -> DdsQos:
    """Quality of service as ROS 2 asks for it, with the encoding ROS 2 uses (XCDR version 1)."""
    return DdsQos(
        Policy.Reliability.Reliable(duration(milliseconds=_PATIENCE_MS))
        if qos.reliable
        else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.transient_local else Policy.Durability.Volatile,
        Policy.History.KeepLast(qos.depth),
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
    )


class CycloneWriter:
    """One DDS writer."""

    def __init__(self, participant: DomainParticipant, topic: str, type_name: str, qos: Qos) -> None:
        self._type = raw_type(type_name)
        self._topic = topic
        self._latched = qos.transient_local
        self._writer = DataWriter(participant, Topic(participant, f"rt{topic}", self._type), dds_qos(qos))

    def wanted(self) -> bool:
        return self._latched or bool(self._writer.get_matched_subscriptions())

    def write(self, data: bytes) -> None:
        try:
            self._writer.write(self._type(data))
        except DDSException as error:
            # A reliable reader that takes nothing loses this message, rather than holding up everybody.
            if error.code != DDSException.DDS_RETCODE_TIMEOUT:
                raise SourceError(f"DDS topic {self._topic} cannot be written: {error}") from None


class CycloneBackend:
    """A DDS participant on the domain of a ROS 2 graph; CYCLONEDDS_URI configures its network.

    Raises:
        SourceError: the domain cannot be joined.
    """

    name = "cyclonedds"
    generation: Literal[1, 2] = 2

    def __init__(self, options: Options) -> None:
        try:
            self._participant = DomainParticipant(options.domain)
        except DDSException as error:
            raise SourceError(
                f"DDS domain {options.domain} cannot be joined: {' '.join(str(error).split())}; "
                "check the network interface in CYCLONEDDS_URI"
            ) from None
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def advertise(self, topic: str, type_name: str, qos: Qos) -> CycloneWriter:
        return CycloneWriter(self._participant, topic, type_name, qos)

    def subscribe(self, topic: str, type_name: str, qos: Qos, received: Received) -> None:
        reader = DataReader(
            self._participant, Topic(self._participant, f"rt{topic}", raw_type(type_name)), dds_qos(qos)
        )
        thread = threading.Thread(target=self._read, args=(reader, received), name=f"dds{topic}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, reader: DataReader[Any], received: Received) -> None:
        waiting = WaitSet(self._participant)
        waiting.attach(ReadCondition(reader, SampleState.NotRead | ViewState.Any | InstanceState.Alive))
        while not self._closed.is_set():
            waiting.wait(duration(milliseconds=_POLL_MS))
            for sample in reader.take(_TAKE):
                # What is not a message tells that a writer has gone.
                if isinstance(getattr(sample, "data", None), bytes):
                    received(sample.data)

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()
        del self._participant
