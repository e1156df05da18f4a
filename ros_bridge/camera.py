"""The camera a source watches, as far as ROS knows it: its frame, its calibration, its recent images."""

import logging
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from ros_bridge.backends.base import Backend
from ros_bridge.topics import SENSOR
from streaming.ros.cdr import DecodeError, Serialiser
from streaming.ros.definitions import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from streaming.ros.messages import CameraInfo
from streaming.ros.pixels import decompress, to_bgr

_log = logging.getLogger("unseen.ros")

_KEPT_IMAGES = 32
"""Scenes come a few frames after their image: the lag of a final one and the engine's own time."""


def info_topic(image_topic: str) -> str:
    """Where a camera's calibration is published, beside its images: `/a/image_raw` -> `/a/camera_info`."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"


class Camera:
    """Listens to an image topic and the camera_info beside it; safe to ask from another thread.

    Args:
        keep_images: also keep recent images, for overlays.

    Attributes:
        frame_id: of the last message of the camera, None before the first.
        info: its last calibration, None before the first.
        malformed: messages that could not be read.
    """

    def __init__(self, backend: Backend, topic: str, *, keep_images: bool) -> None:
        self.frame_id: str | None = None
        self.info: CameraInfo | None = None
        self.malformed = 0
        self._serialiser = Serialiser(backend.generation)
        self._compressed = topic.endswith("/compressed")
        self._images: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        backend.subscribe(info_topic(topic), CAMERA_INFO, SENSOR, self._take_info)
        if keep_images:
            backend.subscribe(topic, COMPRESSED_IMAGE if self._compressed else IMAGE, SENSOR, self._take_image)

    def image(self, stamp_ns: int) -> NDArray[np.uint8] | None:
        """The image with exactly this stamp, uint8 [H, W, 3] BGR; None when it is not here (any more)."""
        with self._lock:
            data = self._images.get(stamp_ns)
        if data is None:
            return None
        try:
            if self._compressed:
                return decompress(self._serialiser.decode_compressed(data))
            return to_bgr(self._serialiser.decode_image(data))
        except DecodeError as error:
            self._count(error)
            return None

    def _take_info(self, data: bytes) -> None:
        try:
            self.info = self._serialiser.decode_camera_info(data)
            self.frame_id = self.info.header.frame_id
        except DecodeError as error:
            self._count(error)

    def _take_image(self, data: bytes) -> None:
        try:
            decode = self._serialiser.decode_compressed if self._compressed else self._serialiser.decode_image
            header = decode(data).header
        except DecodeError as error:
            self._count(error)
            return
        self.frame_id = header.frame_id
        with self._lock:
            self._images[header.stamp_ns] = data
            while len(self._images) > _KEPT_IMAGES:
                self._images.popitem(last=False)

    def _count(self, error: DecodeError) -> None:
        if not self.malformed:
            _log.warning("camera: %s", error)
        self.malformed += 1
