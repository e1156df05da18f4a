"""Our messages as rosbags' message objects, which its serialisers turn into bytes."""

from typing import Any

import numpy as np
from rosbags.typesys.store import Typestore

from streaming.ros.messages import (
    CameraInfo,
    CompressedImage,
    Detection,
    Detections,
    Diagnostics,
    Header,
    Image,
    LabelInfo,
    RosMessage,
    Status,
)

NANOSECONDS = 1_000_000_000

_NO_BYTES = np.empty(0, np.uint8)
_NO_COVARIANCE = np.zeros(36)


class Builder:
    """Makes rosbags' objects for one generation of ROS.

    Args:
        store: the definitions. generation: 1 or 2; they differ in the header and in detections.
    """

    def __init__(self, store: Typestore, generation: int) -> None:
        self._types: Any = store.types  # classes made at run time: nothing for a type checker to hold on to
        self._generation = generation

    def build(self, message: RosMessage) -> Any:
        """The message as rosbags' object; images stay without their data, which is appended as it is."""
        match message:
            case Image():
                return self._image(message)
            case CompressedImage():
                return self._make(
                    "sensor_msgs", "CompressedImage", self._header(message.header), message.format, _NO_BYTES
                )
            case Detections():
                found = [self._detection(item, message.header) for item in message.detections]
                return self._make("vision_msgs", "Detection2DArray", self._header(message.header), found)
            case LabelInfo():
                classes = [
                    self._make("vision_msgs", "VisionClass", label, str(object_id))
                    for label, object_id in message.object_ids
                ]
                return self._make("vision_msgs", "LabelInfo", self._header(message.header), classes, 0.0)
            case Diagnostics():
                statuses = [self._status(item) for item in message.statuses]
                return self._make("diagnostic_msgs", "DiagnosticArray", self._header(message.header), statuses)
            case CameraInfo():
                fields = {**vars(message.content), "header": self._header(message.header)}
                return type(message.content)(**{key: v for key, v in fields.items() if not key.startswith("__")})

    def _make(self, package: str, name: str, *fields: Any) -> Any:
        return self._types[f"{package}/msg/{name}"](*fields)

    def _header(self, header: Header) -> Any:
        stamp = self._make("builtin_interfaces", "Time", *divmod(header.stamp_ns, NANOSECONDS))
        # ROS 1 counts headers itself; publishers of ready bytes leave the number at 0.
        counter = (0,) if self._generation == 1 else ()
        return self._make("std_msgs", "Header", *counter, stamp, header.frame_id)

    def _image(self, image: Image) -> Any:
        return self._make(
            "sensor_msgs",
            "Image",
            self._header(image.header),
            image.height,
            image.width,
            image.encoding,
            int(image.bigendian),
            image.step,
            _NO_BYTES,
        )

    def _detection(self, item: Detection, header: Header) -> Any:
        point = self._make("geometry_msgs", "Point", 0.0, 0.0, 0.0)
        upright = self._make("geometry_msgs", "Quaternion", 0.0, 0.0, 0.0, 1.0)
        pose = self._make(
            "geometry_msgs", "PoseWithCovariance", self._make("geometry_msgs", "Pose", point, upright), _NO_COVARIANCE
        )
        if self._generation == 1:
            centre = self._make("geometry_msgs", "Pose2D", *item.centre, 0.0)
            hypothesis = self._make("vision_msgs", "ObjectHypothesisWithPose", item.object_id, item.score, pose)
            last = self._image(Image(header, 0, 0, "", 0, memoryview(b"")))
        else:
            centre = self._make("vision_msgs", "Pose2D", self._make("vision_msgs", "Point2D", *item.centre), 0.0)
            which = self._make("vision_msgs", "ObjectHypothesis", str(item.label), item.score)
            hypothesis = self._make("vision_msgs", "ObjectHypothesisWithPose", which, pose)
            last = str(item.object_id)
        box = self._make("vision_msgs", "BoundingBox2D", centre, *item.size)
        return self._make("vision_msgs", "Detection2D", self._header(header), [hypothesis], box, last)

    def _status(self, item: Status) -> Any:
        values = [self._make("diagnostic_msgs", "KeyValue", key, value) for key, value in item.values]
        return self._make(
            "diagnostic_msgs", "DiagnosticStatus", int(item.level), item.name, item.message, item.hardware_id, values
        )
