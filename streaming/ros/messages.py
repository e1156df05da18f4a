"""What becomes what: a scene as ROS messages. Pure functions, no sockets, no clock, either generation of ROS.

A scene comes from the engine itself or off the wire; both have the attributes used here.

image/compressed    sensor_msgs/CompressedImage     the frame, when recording
labels              sensor_msgs/Image               the label map, pixel for pixel
detections          vision_msgs/Detection2DArray    one per object; id = object id, class = pixel value
label_info          vision_msgs/LabelInfo           pixel value -> object id
overlay/compressed  sensor_msgs/CompressedImage     the masks to look at
diagnostics         diagnostic_msgs/DiagnosticArray one status per source
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.frame import Frame
from engine.scene import Scene
from streaming.overlay import draw_overlay
from streaming.wire import Message

LabelEncoding = Literal["16UC1", "mono8"]

_JPEG_QUALITY = 80
_DARK_GREY = 40  # behind masks without a camera image: identity colours and contours stay visible


@dataclass(frozen=True, slots=True)
class Header:
    """When and where. stamp_ns: Unix time of capture. frame_id: the camera's optical frame."""

    stamp_ns: int
    frame_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image; `data` holds height rows of `step` bytes, little-endian unless `bigendian`."""

    header: Header
    height: int
    width: int
    encoding: str
    step: int
    data: memoryview
    bigendian: bool = False


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """An encoded picture. format: "jpeg"."""

    header: Header
    format: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class Detection:
    """One object. centre, size in frame pixels, as floats: a half-open box [0, 4) has its centre at 2.0."""

    object_id: int
    label: int
    score: float
    centre: tuple[float, float]
    size: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Detections:
    """All objects of one scene."""

    header: Header
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """Which pixel value of the label map is which object: ascending (label, object id)."""

    header: Header
    object_ids: tuple[tuple[int, int], ...]


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Status:
    """How one source is doing."""

    level: Level
    name: str
    message: str
    hardware_id: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """How all sources are doing, at header.stamp_ns."""

    header: Header
    statuses: tuple[Status, ...]


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera's calibration on its way through; `content` is the ROS message as rosbags decodes it."""

    header: Header
    content: Any


RosMessage = Image | CompressedImage | Detections | LabelInfo | Diagnostics | CameraInfo


def header(message: Message | Scene, frame_id: str) -> Header:
    """Stamp of a scene: the time of capture, never of publishing."""
    return Header(message.t_capture_ns, frame_id)


def labels_image(message: Message | Scene, frame_id: str, encoding: LabelEncoding = "16UC1") -> Image:
    """The label map as an image.

    `16UC1`, not `mono16`: readers scale the latter like a grey picture, and small labels vanish. With `mono8` every
    label above 255 becomes 255, which then means "an object, look at the detections for which".

    Raises:
        WireError: the label map is damaged.
    """
    labels: NDArray[Any] = message.labels
    narrow = encoding == "mono8"
    labels = np.minimum(labels, 255).astype(np.uint8) if narrow else np.ascontiguousarray(labels, "<u2")
    h, w = labels.shape
    return Image(header(message, frame_id), h, w, encoding, w * labels.itemsize, labels.data.cast("B"))


def detections(message: Message | Scene, frame_id: str) -> Detections:
    """The objects with their boxes, in the order of the scene."""
    found = []
    for item in message.objects:
        x0, y0, x1, y1 = item.box
        centre, size = ((x0 + x1) / 2, (y0 + y1) / 2), (float(x1 - x0), float(y1 - y0))
        found.append(Detection(item.id, item.label, item.score, centre, size))
    return Detections(header(message, frame_id), tuple(found))


def label_info(message: Message | Scene, frame_id: str) -> LabelInfo:
    """Which pixel value stands for which object."""
    return LabelInfo(header(message, frame_id), tuple(sorted((item.label, item.id) for item in message.objects)))


def overlay(message: Message, frame_id: str, image: NDArray[np.uint8] | None) -> CompressedImage:
    """The masks as a picture at half the size of the frame: over the camera's image, or over grey without one.

    Args:
        image: uint8 [H, W, 3] BGR, the image with the scene's stamp.

    Raises:
        WireError: the label map is damaged.
    """
    if image is None or image.shape[:2] != message.frame_size:
        image = np.full((*message.size, 3), _DARK_GREY, np.uint8)
    canvas = draw_overlay(image, message.labels, message.objects)
    return _jpeg(header(message, frame_id), canvas, _JPEG_QUALITY)


def frame_image(frame: Frame, frame_id: str, quality: int) -> CompressedImage:
    """What the engine saw, as a JPEG of `quality` 1 … 100."""
    return _jpeg(Header(frame.t_capture_ns, frame_id), frame.image, quality)


def _jpeg(header: Header, image: NDArray[np.uint8], quality: int) -> CompressedImage:
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return CompressedImage(header, "jpeg", np.ascontiguousarray(jpeg).data.cast("B"))


def camera_info(info: CameraInfo, message: Message) -> CameraInfo:
    """The camera's calibration with the stamp of the labels, so that both pair up like any camera's topics."""
    return replace(info, header=Header(message.t_capture_ns, info.header.frame_id))


def status(name: str, endpoint: str, level: Level, text: str, values: Mapping[str, object]) -> Status:
    """One line of diagnostics; floats are rounded to a tenth, what cannot be printed becomes `?`."""
    shown = ((key, f"{value:.1f}" if isinstance(value, float) else str(value)) for key, value in values.items())
    return Status(level, name, text, endpoint, tuple((_printable(key), _printable(value)) for key, value in shown))


def _printable(text: str) -> str:
    """JSON may hold half a character, which no other encoding can carry."""
    return "".join(character if character.isprintable() else "?" for character in text)
