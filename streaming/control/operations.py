"""What each operation of the control channel does, and the arguments it takes."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.config import nearest
from engine.errors import UsageError
from engine.frame import Frame
from engine.scene import Object, Scene
from streaming.control.protocol import ControlError, Request
from streaming.control.settings import LiveSettings
from streaming.header import Header
from streaming.label_codec import decode_labels, encode_labels
from streaming.overlay import draw_overlay
from streaming.wire import check_source_name, object_fields

MAX_SOURCES = 64
"""More would be a mistake or an attack: each costs a thread, and a series of metrics."""

_LONGEST_URI = 2000
_LARGEST_INDEX = 2**62
_SNAPSHOT_PX = (16, 1920)
_JPEG_QUALITY = 85

Queue = Literal["now", "steer", "model"]


class Steered(Protocol):
    """What the control channel needs of a session; every method is safe from any thread."""

    def sources(self) -> Sequence[Any]: ...
    def add_source(self, text: str, /) -> str: ...
    def remove_source(self, name: str, /) -> None: ...
    def pause(self, name: str | None, /) -> None: ...
    def resume(self, name: str | None, /) -> None: ...
    def track(
        self,
        source: str,
        /,
        *,
        mask: NDArray[np.bool_] | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> int: ...
    def forget(self, source: str, identity: int, /) -> None: ...
    def snapshot(self, source: str, /) -> tuple[Frame, Scene]: ...
    def stop(self) -> None: ...


class Models(Protocol):
    """The watched model registry; both answer with the new generation once the model runs."""

    def reload(self) -> int: ...
    def rollback(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        run: does it; the result must be JSON.
        allowed: names of its arguments.
        queue: "now" answers at once in the thread of the socket; the others wait their turn on a thread of
            their own, so that loading a model does not keep anybody from pausing a source.
    """

    run: Callable[[Header], Any]
    allowed: frozenset[str]
    queue: Queue


class Operations:
    """The table of operations on one running engine.

    Args:
        session: what is steered.
        status: a fresh summary of the engine; must not wait for anything.
        settings: knobs that may change, None when none may.
        models: the model registry, None when the engine runs without one.
    """

    def __init__(
        self,
        session: Steered,
        status: Callable[[], dict[str, Any]],
        settings: LiveSettings | None = None,
        models: Models | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._models = models
        self.table = {
            "status": _operation(lambda _: status(), queue="now"),
            "sources": _operation(lambda _: source_list(session), queue="now"),
            "pause": _operation(self._pause, "source"),
            "resume": _operation(self._resume, "source"),
            "add_source": _operation(self._add_source, "source"),
            "remove_source": _operation(self._remove_source, "source"),
            "set": _operation(self._set, "settings"),
            "track": _operation(self._track, "source", "mask", "box", "point"),
            "forget": _operation(self._forget, "source", "object"),
            "reload_model": _operation(self._reload_model, queue="model"),
            "rollback_model": _operation(self._rollback_model, queue="model"),
            "snapshot": _operation(self._snapshot, "source", "what", "width_px"),
            "shutdown": _operation(self._shutdown),
        }

    def find(self, request: Request) -> tuple[Operation, Header]:
        """The operation a request names and its arguments, whose names are checked.

        Raises:
            ControlError: unknown operation or argument.
        """
        operation = self.table.get(request.op)
        if operation is None:
            message = f"unknown operation {request.op[:60]!r}{nearest(request.op[:60], self.table)}"
            raise ControlError("unknown_op", message, request.id)
        for name in request.args:
            if name not in operation.allowed:
                known = nearest(name[:60], operation.allowed) if operation.allowed else " (it takes none)"
                raise ControlError("bad_args", f"{request.op}: unknown argument {name[:60]!r}{known}", request.id)
        return operation, Header(request.args, request.op)

    def _pause(self, args: Header) -> dict[str, Any]:
        name = self._known_source(args) if "source" in args.fields else None
        self._session.pause(name)
        return {"paused": name}

    def _resume(self, args: Header) -> dict[str, Any]:
        name = self._known_source(args) if "source" in args.fields else None
        self._session.resume(name)
        return {"resumed": name}

    def _add_source(self, args: Header) -> dict[str, Any]:
        text = args.text("source")
        if not 0 < len(text) <= _LONGEST_URI or not text.isprintable():
            raise ControlError("bad_args", f"add_source: 1 to {_LONGEST_URI} printable characters are needed")
        running = len(self._session.sources())
        if running >= MAX_SOURCES:
            raise ControlError("usage", f"add_source: {running} sources run, at most {MAX_SOURCES} may; remove one")
        return {"source": self._session.add_source(text)}

    def _remove_source(self, args: Header) -> dict[str, Any]:
        name = self._known_source(args)
        self._session.remove_source(name)
        return {"removed": name}

    def _set(self, args: Header) -> dict[str, Any]:
        if self._settings is None:
            raise ControlError("unavailable", "set: nothing may change live in this engine")
        settings = args.optional_section("settings")
        if settings is None:
            raise ControlError("bad_args", "set: 'settings' is needed, an object such as {\"select.lambda_flow\": 2}")
        return {"settings": self._settings.change(settings.fields)}

    def _track(self, args: Header) -> dict[str, Any]:
        given = [name for name in ("mask", "box", "point") if name in args.fields]
        if len(given) != 1:
            raise ControlError("bad_args", f"track: exactly one of mask, box, point is needed, got {len(given)}")
        name, prompt = self._known_source(args), given[0]
        value: Any
        if prompt == "mask":
            frame, _ = self._session.snapshot(name)
            value = _mask(args, (frame.image.shape[0], frame.image.shape[1]))
        else:
            value = _coordinates(args, prompt, 4 if prompt == "box" else 2)
        return {"object": self._session.track(name, **{prompt: value})}

    def _forget(self, args: Header) -> dict[str, Any]:
        identity = args.whole("object", 0, _LARGEST_INDEX)
        self._session.forget(self._known_source(args), identity)
        return {"forgotten": identity}

    def _reload_model(self, _: Header) -> dict[str, Any]:
        return {"generation": self._registry().reload()}

    def _rollback_model(self, _: Header) -> dict[str, Any]:
        return {"generation": self._registry().rollback()}

    def _snapshot(self, args: Header) -> dict[str, Any]:
        what = args.text("what") if "what" in args.fields else "overlay"
        if what not in ("overlay", "image", "labels"):
            raise ControlError("bad_args", f"snapshot: what is {what[:60]!r}: one of overlay, image, labels is needed")
        width = args.whole("width_px", *_SNAPSHOT_PX) if "width_px" in args.fields else 640
        frame, scene = self._session.snapshot(self._known_source(args))
        return {
            "source": scene.source,
            "kind": scene.kind,
            "frame": scene.frame_index,
            "t_capture_ns": scene.t_capture_ns,
            "frame_size": [int(side) for side in frame.image.shape[:2]],
            "objects": [object_fields(item) for item in scene.objects],
            **_picture(what, frame, scene, width),
        }

    def _shutdown(self, _: Header) -> dict[str, Any]:
        self._session.stop()
        return {"stopping": True}

    def _registry(self) -> Models:
        if self._models is None:
            raise ControlError("unavailable", "no model registry: start the engine with --models DIR")
        return self._models

    def _known_source(self, args: Header) -> str:
        """The named source, or the only one."""
        names = [status.name for status in self._session.sources()]
        if "source" not in args.fields and len(names) == 1:
            return str(names[0])
        if "source" not in args.fields:
            raise UsageError(f"name a source: {', '.join(names) or 'there are none'}")
        name = args.text("source")
        check_source_name(name)
        if name not in names:
            raise UsageError(f"no source {name[:60]!r}{nearest(name, names) if names else ' (there are none)'}")
        return name


def source_list(session: Steered) -> list[dict[str, Any]]:
    """Every source as JSON."""
    return [asdict(status) for status in session.sources()]


def _operation(run: Callable[[Header], Any], *allowed: str, queue: Queue = "steer") -> Operation:
    return Operation(run, frozenset(allowed), queue)


def _coordinates(args: Header, key: str, count: int) -> tuple[float, ...]:
    """Pixels of the frame, finite; the prompt itself says whether they lie inside."""
    value = args.fields[key]
    if not isinstance(value, list) or len(value) != count:
        raise ControlError("bad_args", f"track: {key!r} must be a list of {count} numbers")
    return tuple(Header({key: item}, "track").number(key) for item in value)


def _mask(args: Header, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask sent as a label map: {encoding, shape, data in base64}; what is not 0 is the object."""
    section = args.optional_section("mask")
    if section is None:
        raise ControlError("bad_args", "track: 'mask' must be an object with encoding, shape and data")
    unknown = sorted(section.fields.keys() - {"encoding", "shape", "data"})
    if unknown:
        raise ControlError("bad_args", f"track: mask has an unknown key {unknown[0][:60]!r}")
    try:
        data = base64.b64decode(section.text("data"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ControlError("bad_args", f"track: mask data is not base64 ({error})") from None
    encoding = section.text("encoding")
    if encoding not in ("rle+zlib", "png", "raw"):
        raise ControlError("bad_args", f"track: mask encoding {encoding[:60]!r}: rle+zlib, png or raw is needed")
    shape = section.size("shape")
    if shape != frame_size:
        # Before decoding: memory is spent on masks that can fit only.
        raise ControlError("bad_args", f"track: mask of {shape} pixels: [h, w] of the frames is {frame_size}")
    mask: NDArray[np.bool_] = decode_labels(data, encoding, shape) != 0
    return mask


def mask_argument(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A bool [H, W] mask as `track` takes it."""
    data = encode_labels(mask.astype(np.uint16), "rle+zlib")
    return {"encoding": "rle+zlib", "shape": list(mask.shape), "data": base64.b64encode(data).decode()}


def _picture(what: str, frame: Frame, scene: Scene, width_px: int) -> dict[str, Any]:
    if what == "labels":
        encoding, data = "png", encode_labels(scene.labels, "png")
        size = scene.labels.shape
    else:
        scale = min(1.0, width_px / frame.image.shape[1])
        objects: tuple[Object, ...] = scene.objects if what == "overlay" else ()
        picture = draw_overlay(frame.image, scene.labels, objects, scale)
        encoding, size = "jpeg", picture.shape[:2]
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return {"what": what, "encoding": encoding, "size": list(size), "data": base64.b64encode(data).decode()}
