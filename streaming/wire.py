"""The wire protocol, version 1: a scene or a source's state as ZeroMQ message parts, and back.

    part 0    topic    masks/<source>/<kind>/  or  state/<source>/
    part 1    header   UTF-8 JSON object
    part 2... buffers  in the order of header["parts"]

Pure functions, no sockets. Whatever `decode` is given, it returns a valid message or raises `WireError`.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from engine.scene import CommitInfo, Look, Object, Scene
from streaming.clock import CLOCK
from streaming.header import Header
from streaming.label_codec import Labels, WireError, check_shape, decode_labels, encode_labels

__all__ = [
    "VERSION",
    "Kind",
    "Message",
    "ModelInfo",
    "State",
    "WireError",
    "check_source_name",
    "check_state",
    "decode",
    "encode_eos",
    "encode_heartbeat",
    "encode_scene",
    "mask_topic",
    "state_topic",
]

VERSION = 1

SceneKind = Literal["provisional", "final"]
Kind = Literal["provisional", "final", "heartbeat", "eos"]
State = Literal["live", "stalled", "reconnecting", "ended"]

_LABELS = "labels"
_LABELS_DTYPE = "<u2"
_MAX_NAME_BYTES = 200
_MAX_PARTS = 64


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model made a scene: name, hash of its file, how often models were swapped since the start."""

    name: str = ""
    hash: str = ""
    generation: int = 0


@dataclass(frozen=True)
class Message:
    """One decoded message; attributes are named like the header's keys.

    Attributes:
        kind: "provisional" and "final" carry a scene; "heartbeat" and "eos" a state.
        source, session, seq: who sent it; seq counts the messages of one topic within a session.
        t_publish_ns: Unix time the sender handed it to its publisher.
        state: of the source, for heartbeat and eos; None for scenes.
        frame: capture index, gaps are dropped frames (scenes only, as everything below).
        t_capture_ns: Unix time of acquisition.
        pts_ns: presentation time inside a file, None for live sources.
        size: (h, w) of the label map; frame_size: (H, W) of the frame, the unit of the boxes.
        objects: what the label map shows. commit: how a final scene was decided.
        look: what deserves another look, the most first.
        model, timing_ms, dropped: which model, stage times in ms and drop counts by cause.
    """

    kind: Kind
    source: str
    session: str
    seq: int
    t_publish_ns: int
    state: State | None = None
    frame: int = -1
    t_capture_ns: int = 0
    pts_ns: int | None = None
    size: tuple[int, int] = (0, 0)
    frame_size: tuple[int, int] = (0, 0)
    objects: tuple[Object, ...] = ()
    commit: CommitInfo | None = None
    look: tuple[Look, ...] = ()
    model: ModelInfo = ModelInfo()
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    encoding: str = ""
    buffer: bytes = field(default=b"", repr=False)

    @property
    def topic(self) -> bytes:
        """The topic this message travels on."""
        if self.kind == "provisional" or self.kind == "final":
            return mask_topic(self.source, self.kind)
        return state_topic(self.source)

    @cached_property
    def labels(self) -> Labels:
        """Label map uint16 [h, w], 0 is background; decoded on first use.

        Raises:
            WireError: the buffer is damaged (found by `decode` unless it was lazy) or there is none.
        """
        if not self.encoding:
            raise WireError(f"a {self.kind} message carries no label map")
        return decode_labels(self.buffer, self.encoding, self.size)

    def mask(self, object_id: int) -> NDArray[np.bool_]:
        """Mask bool [h, w] of the object with identity `object_id`.

        Raises:
            KeyError: no such object in this scene.
        """
        for item in self.objects:
            if item.id == object_id:
                return cast(NDArray[np.bool_], self.labels == item.label)
        raise KeyError(object_id)


def check_source_name(source: str) -> None:
    """Raise `WireError` unless `source` can be part of a topic: not empty, no slash, no control character."""
    printable = not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in source)
    if not source or "/" in source or not printable or len(source.encode()) > _MAX_NAME_BYTES:
        needed = f"1 to {_MAX_NAME_BYTES} bytes without '/' and control characters"
        raise WireError(f"source name {source[:60]!r}: {needed} are needed")


def check_state(state: str) -> None:
    """Raise `WireError` unless `state` is one of the states of the protocol."""
    if state not in get_args(State):
        raise WireError(f"unknown source state {state[:40]!r}: one of {', '.join(get_args(State))} is needed")


def mask_topic(source: str, kind: SceneKind) -> bytes:
    """Topic of the scenes of one source; the trailing slash keeps `cam1` from matching `cam10`."""
    return f"masks/{source}/{kind}/".encode()


def state_topic(source: str) -> bytes:
    """Topic of the heartbeats and the end-of-stream of one source."""
    return f"state/{source}/".encode()


def encode_scene(
    scene: Scene,
    *,
    session: str,
    seq: int,
    model: ModelInfo | None = None,
    timing_ms: Mapping[str, float] | None = None,
    dropped: Mapping[str, int] | None = None,
    encoding: str = "rle+zlib",
    t_publish_ns: int | None = None,
) -> list[bytes]:
    """Message parts [topic, header, labels] of a scene.

    Args:
        session: uuid hex, new per start. seq: +1 per message and topic.
        timing_ms, dropped: stage times and drop counts by cause, told to every reader.
        t_publish_ns: Unix time, now by default.

    Raises:
        WireError: a bad source name, a number that is not finite, a label map that is not uint16 [h, w].
    """
    check_source_name(scene.source)
    buffer = encode_labels(scene.labels, encoding)
    size = [int(side) for side in scene.labels.shape]
    commit = scene.commit
    header = _common(scene.kind, scene.source, session, seq, t_publish_ns) | {
        "frame": int(scene.frame_index),
        "t_capture_ns": int(scene.t_capture_ns),
        "pts_ns": None if scene.pts_ns is None else int(scene.pts_ns),
        "size": size,
        "frame_size": size,
        "objects": [object_fields(item) for item in scene.objects],
        "commit": None if commit is None else _commit_fields(commit),
        "look": [_look_fields(item) for item in scene.look],
        "model": asdict(model or ModelInfo()),
        "timing_ms": {str(stage): float(ms) for stage, ms in (timing_ms or {}).items()},
        "dropped": {str(cause): int(count) for cause, count in (dropped or {}).items()},
        "parts": [{"name": _LABELS, "encoding": encoding, "dtype": _LABELS_DTYPE, "shape": size}],
    }
    return [mask_topic(scene.source, scene.kind), _to_json(header), buffer]


def encode_heartbeat(
    source: str, state: State, *, session: str, seq: int, t_publish_ns: int | None = None
) -> list[bytes]:
    """Message parts [topic, header] that say how a source is doing."""
    return _encode_state("heartbeat", source, state, session, seq, t_publish_ns)


def encode_eos(source: str, *, session: str, seq: int, t_publish_ns: int | None = None) -> list[bytes]:
    """Message parts [topic, header] that end a source: no scene follows in this session."""
    return _encode_state("eos", source, "ended", session, seq, t_publish_ns)


def _encode_state(
    kind: Kind, source: str, state: State, session: str, seq: int, t_publish_ns: int | None
) -> list[bytes]:
    check_source_name(source)
    if state not in get_args(State):
        raise WireError(f"state {state!r} of source {source!r}: one of {', '.join(get_args(State))} is needed")
    header = _common(kind, source, session, seq, t_publish_ns) | {"state": state, "parts": []}
    return [state_topic(source), _to_json(header)]


def _common(kind: Kind, source: str, session: str, seq: int, t_publish_ns: int | None) -> dict[str, Any]:
    return {
        "v": VERSION,
        "kind": kind,
        "source": source,
        "session": session,
        "seq": seq,
        "t_publish_ns": CLOCK.now_ns() if t_publish_ns is None else t_publish_ns,
    }


def object_fields(item: Object) -> dict[str, Any]:
    """An object as headers tell it."""
    # Detectors hand over NumPy scalars, which JSON does not know.
    return {
        "id": int(item.id),
        "label": int(item.label),
        "score": float(item.score),
        "box": [int(v) for v in item.box],
        "area": int(item.area),
        "age": int(item.age),
        "novelty": float(item.novelty),
        "foreground": float(item.foreground),
        "uncertainty": float(item.uncertainty),
    }


def _commit_fields(commit: CommitInfo) -> dict[str, Any]:
    return {
        "exact": bool(commit.exact),
        "lag": int(commit.lag),
        "loss_bound": float(commit.loss_bound),
        "margin": None if commit.margin is None else float(commit.margin),
    }


def _look_fields(item: Look) -> dict[str, Any]:
    return {
        "id": None if item.id is None else int(item.id),
        "box": [int(v) for v in item.box],
        "reason": item.reason,
        "priority": float(item.priority),
    }


def _to_json(header: dict[str, Any]) -> bytes:
    try:
        return json.dumps(header, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise WireError(f"{header['kind']} of source {header['source']!r} cannot be sent: {error}") from None


def decode(parts: Sequence[bytes], *, lazy: bool = False) -> Message:
    """Decode and check the parts of one message.

    Args:
        parts: topic, header and buffers as received; unknown header keys and further buffers are ignored.
        lazy: leave the label map to the first use of `Message.labels`, which then may raise `WireError`.

    Raises:
        WireError: anything that does not follow the protocol, or a larger protocol version.
    """
    if not 2 <= len(parts) <= _MAX_PARTS:
        raise WireError(f"message has {len(parts)} parts, 2 to {_MAX_PARTS} are needed")
    header = Header.parse(parts[1])
    version = header.whole("v", 1)
    if version > VERSION:
        raise WireError(f"message is protocol version {version}, this reader knows {VERSION}: update the reader")
    kind = header.text("kind")
    if kind in get_args(SceneKind):
        message = _decode_scene(header, cast(SceneKind, kind), parts[2:])
    elif kind in ("heartbeat", "eos"):
        message = _decode_state(header, cast(Kind, kind))
    else:
        raise WireError(f"unknown message kind {kind[:40]!r}: one of {', '.join(get_args(Kind))} is needed")
    check_source_name(message.source)
    if message.topic != parts[0]:
        raise WireError(f"message for topic {message.topic!r} came on topic {parts[0][:80]!r}")
    if message.encoding and not lazy:
        _ = message.labels
    return message


def _decode_state(header: Header, kind: Kind) -> Message:
    state = header.text("state")
    check_state(state)
    return Message(
        kind=kind,
        source=header.text("source"),
        session=header.text("session"),
        seq=header.whole("seq"),
        t_publish_ns=header.whole("t_publish_ns"),
        state=cast(State, state),
    )


def _decode_scene(header: Header, kind: SceneKind, buffers: Sequence[bytes]) -> Message:
    size = header.size("size")
    check_shape(size)
    encoding, buffer = _find_labels(header, size, buffers)
    return Message(
        kind=kind,
        source=header.text("source"),
        session=header.text("session"),
        seq=header.whole("seq"),
        t_publish_ns=header.whole("t_publish_ns"),
        frame=header.whole("frame"),
        t_capture_ns=header.whole("t_capture_ns"),
        pts_ns=header.optional_whole("pts_ns"),
        size=size,
        frame_size=header.size("frame_size"),
        objects=_decode_objects(header),
        commit=_decode_commit(header),
        look=tuple(_decode_look(item) for item in header.optional_sections("look")),
        model=_decode_model(header),
        timing_ms=header.numbers("timing_ms"),
        dropped=header.counts("dropped"),
        encoding=encoding,
        buffer=buffer,
    )


def _find_labels(header: Header, size: tuple[int, int], buffers: Sequence[bytes]) -> tuple[str, bytes]:
    """Encoding and bytes of the part named labels; parts of other names are skipped."""
    for position, part in enumerate(header.sections("parts")):
        if part.text("name") != _LABELS:
            continue
        if part.text("dtype") != _LABELS_DTYPE or part.size("shape") != size:
            raise WireError(f"labels are declared {part.fields['dtype']!r} {part.fields['shape']}, size is {size}")
        if position >= len(buffers):
            raise WireError(f"header declares labels as buffer {position}, the message has {len(buffers)} buffers")
        return part.text("encoding"), buffers[position]
    raise WireError("message has no part named 'labels'")


def _decode_objects(header: Header) -> tuple[Object, ...]:
    objects = []
    for item in header.sections("objects"):
        x0, y0, x1, y1 = item.wholes("box", 4)
        objects.append(
            Object(
                id=item.whole("id"),
                label=item.whole("label", 1, 65535),
                score=item.number("score"),
                box=(x0, y0, x1, y1),
                area=item.whole("area"),
                age=item.whole("age"),
                novelty=item.number("novelty"),
                foreground=item.number("foreground"),
                # Later additions to version 1 may be missing.
                uncertainty=item.optional_number("uncertainty") or 0.0,
            )
        )
    if len({item.id for item in objects}) < len(objects) or len({item.label for item in objects}) < len(objects):
        raise WireError("two objects share an id or a label: each must be unique within a message")
    return tuple(objects)


def _decode_commit(header: Header) -> CommitInfo | None:
    commit = header.optional_section("commit")
    if commit is None:
        return None
    return CommitInfo(
        exact=commit.truth("exact"),
        lag=commit.whole("lag"),
        loss_bound=commit.number("loss_bound"),
        margin=commit.optional_number("margin"),
    )


def _decode_look(item: Header) -> Look:
    x0, y0, x1, y1 = item.wholes("box", 4)
    identity = None if item.fields.get("id") is None else item.whole("id")
    return Look(identity, (x0, y0, x1, y1), item.text("reason"), item.number("priority"))


def _decode_model(header: Header) -> ModelInfo:
    model = header.optional_section("model")
    if model is None:
        return ModelInfo()
    return ModelInfo(name=model.text("name"), hash=model.text("hash"), generation=model.whole("generation"))
