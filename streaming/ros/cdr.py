"""Messages as bytes and back: CDR for ROS 2, the plain layout of ROS 1; rosbags' serialiser does both.

The pixels of an image are never serialised: they are the last field, so their bytes are appended to the rest.
"""

import struct
from typing import Any

from rosbags.serde import SerdeError

from streaming.ros.definitions import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    DETECTIONS,
    DIAGNOSTICS,
    IMAGE,
    LABEL_INFO,
    ros1_types,
    ros2_types,
)
from streaming.ros.messages import (
    CameraInfo,
    CompressedImage,
    Detections,
    Diagnostics,
    Header,
    Image,
    LabelInfo,
    RosMessage,
)
from streaming.ros.rosbags_messages import NANOSECONDS, Builder

TYPE_NAMES: dict[type[RosMessage], str] = {
    Image: IMAGE,
    CompressedImage: COMPRESSED_IMAGE,
    Detections: DETECTIONS,
    LabelInfo: LABEL_INFO,
    Diagnostics: DIAGNOSTICS,
    CameraInfo: CAMERA_INFO,
}


class EncodeError(Exception):
    """A message with a number or a text that its ROS type cannot hold."""


class DecodeError(Exception):
    """Bytes that are not a message of the type they came as."""


class Serialiser:
    """Encodes and decodes for one generation of ROS.

    Args:
        generation: 1 or 2.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._store = ros1_types() if generation == 1 else ros2_types()
        self._builder = Builder(self._store, generation)

    def encode(self, message: RosMessage) -> bytes:
        """The message as bytes; CDR comes little-endian with its 4-byte encapsulation header.

        Raises:
            EncodeError: a number or text that does not fit, such as a stamp beyond the year 2038.
        """
        content = self._builder.build(message)
        name = TYPE_NAMES[type(message)]
        try:
            if self._generation == 1:
                encoded = self._store.serialize_ros1(content, name)
            else:
                encoded = self._store.serialize_cdr(content, name, little_endian=True)
        except (struct.error, OverflowError, ValueError) as error:
            raise EncodeError(f"{name} with stamp {message.header.stamp_ns} ns cannot be encoded: {error}") from None
        if isinstance(message, Image | CompressedImage):
            # What rosbags wrote ends with the length of the empty data.
            return b"".join((encoded[:-4], struct.pack("<I", message.data.nbytes), message.data))
        return bytes(encoded)

    def decode_image(self, data: bytes | memoryview) -> Image:
        """An image whose `data` points into the bytes given.

        Raises:
            DecodeError: truncated, or not an image.
        """
        content = self._decode(data, IMAGE)
        return Image(
            _header(content),
            content.height,
            content.width,
            content.encoding,
            content.step,
            memoryview(content.data).cast("B"),
            bool(content.is_bigendian),
        )

    def decode_compressed(self, data: bytes | memoryview) -> CompressedImage:
        """A compressed image whose `data` points into the bytes given.

        Raises:
            DecodeError: truncated, or not a compressed image.
        """
        content = self._decode(data, COMPRESSED_IMAGE)
        return CompressedImage(_header(content), content.format, memoryview(content.data).cast("B"))

    def decode_camera_info(self, data: bytes | memoryview) -> CameraInfo:
        """A camera's calibration.

        Raises:
            DecodeError: truncated, or not a CameraInfo.
        """
        content = self._decode(data, CAMERA_INFO)
        return CameraInfo(_header(content), content)

    def _decode(self, data: bytes | memoryview, name: str) -> Any:
        try:
            if self._generation == 1:
                return self._store.deserialize_ros1(data, name)
            return self._store.deserialize_cdr(data, name)
        except (SerdeError, struct.error, ValueError, AssertionError, IndexError) as error:
            raise DecodeError(f"{len(data)} bytes are no {name}: {error}") from None


def _header(content: Any) -> Header:
    stamp = content.header.stamp
    return Header(stamp.sec * NANOSECONDS + stamp.nanosec, content.header.frame_id)
