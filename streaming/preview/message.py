"""One message of the live page: what a browser needs to draw one frame of one source."""

import json
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.frame import Frame
from engine.scene import Object, Scene
from streaming.label_codec import encode_labels
from streaming.overlay import object_colour

SCALE = 0.5
"""Half the frame's size: a quarter of the encoding time, and a browser's bilinear filter hides it."""

LONGEST_SIDE_PX = 960
"""Larger views cost more than they show on a page that also has lists and charts."""

_JPEG_QUALITY = 80
_LENGTHS = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one processed frame took; one point of the charts.

    Attributes:
        frame_index: capture index.
        at_ms: when it was published, milliseconds of the monotonic clock.
        age_ms: capture to publishing.
        timing_ms: what each stage took.
    """

    frame_index: int
    at_ms: float
    age_ms: float
    timing_ms: dict[str, float]


def pack(state: dict[str, Any], labels: bytes = b"", jpeg: bytes = b"") -> bytes:
    """Two little-endian uint32 lengths (JSON, labels), then JSON, labels and JPEG; the latter two may be empty."""
    head = json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTHS.pack(len(head), len(labels)) + head + labels + jpeg


def unpack(message: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """State, labels (`rle+zlib` of the wire protocol) and JPEG of a message."""
    head, labels = _LENGTHS.unpack_from(message)
    start = _LENGTHS.size
    state = json.loads(message[start : start + head])
    return state, message[start + head : start + head + labels], message[start + head + labels :]


def encode_view(frame: Frame, scene: Scene) -> tuple[tuple[int, int], bytes, bytes]:
    """The picture and the label map at the size a page shows them; masks are coloured by the browser.

    Returns:
        (h, w) of both, the label map as `rle+zlib`, the picture as JPEG.
    """
    height, width = frame.image.shape[:2]
    scale = min(SCALE, LONGEST_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(scene.labels, size, interpolation=cv2.INTER_NEAREST)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return (size[1], size[0]), encode_labels(labels.astype(np.uint16, copy=False)), jpeg.tobytes()


def describe_scene(frame: Frame, scene: Scene, tracked: Collection[int]) -> dict[str, Any]:
    """The part of a message's JSON that belongs to its picture: boxes in frame pixels, followed objects also unseen."""
    height, width = frame.image.shape[:2]
    return {
        "index": frame.index,
        "t_capture_ms": frame.t_capture_ns // 1_000_000,
        "size": [height, width],
        "objects": [describe_object(item, tracked) for item in scene.objects],
        "followed": [{"id": identity, "colour": _hex_colour(identity)} for identity in tracked],
    }


def describe_object(item: Object, tracked: Collection[int]) -> dict[str, Any]:
    """One object, with the colour it has in overlays and whether somebody asked to follow it."""
    return {
        "id": item.id,
        "label": item.label,
        "colour": _hex_colour(item.id),
        "box": list(item.box),
        "area": item.area,
        "age": item.age,
        "score": round(item.score, 3),
        "novelty": round(item.novelty, 3),
        "foreground": round(item.foreground, 3),
        "followed": item.id in tracked,
    }


def _hex_colour(identity: int) -> str:
    blue, green, red = object_colour(identity)
    return f"#{red:02x}{green:02x}{blue:02x}"


def describe_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    """Chart points as a table: `rows` of frame index, time, age and one value per name in `stages`."""
    stages: list[str] = []
    for sample in samples:
        stages += [name for name in sample.timing_ms if name not in stages]
    rows = [
        [
            sample.frame_index,
            round(sample.at_ms),
            round(sample.age_ms, 1),
            *(round(sample.timing_ms.get(stage, 0.0), 2) for stage in stages),
        ]
        for sample in samples
    ]
    return {"stages": stages, "rows": rows}


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture without loss, quickly rather than small."""
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return data.tobytes()
