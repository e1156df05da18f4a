"""ROS images as BGR pixels, without cv_bridge (which needs a NumPy of its own)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from streaming.ros.cdr import DecodeError
from streaming.ros.messages import CompressedImage, Image

# encoding -> (bytes per pixel, conversion to BGR); None where the bytes are BGR already
_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8UC4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "mono16": (2, cv2.COLOR_GRAY2BGR),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2),
    # ROS names a Bayer pattern by its first two pixels, OpenCV by the two in the second row and column.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
}

ENCODINGS = tuple(_CONVERSIONS)


def to_bgr(image: Image) -> NDArray[np.uint8]:
    """Pixels of an image.

    Returns:
        uint8 [H, W, 3] BGR; a view of the message's bytes where they are BGR already.

    Raises:
        DecodeError: an encoding that is not in `ENCODINGS`, or fewer bytes than height and step promise.
    """
    if image.encoding not in _CONVERSIONS:
        raise DecodeError(f"image encoding {image.encoding!r} is not supported: {', '.join(ENCODINGS)}")
    pixel_bytes, conversion = _CONVERSIONS[image.encoding]
    h, w = image.height, image.width
    row_bytes = w * pixel_bytes
    if not h or not w or image.step < row_bytes or image.data.nbytes < h * image.step:
        raise DecodeError(
            f"image of {h} x {w} {image.encoding} has step {image.step} and {image.data.nbytes} bytes: "
            f"at least {row_bytes} and {h * image.step} are needed"
        )
    rows = np.frombuffer(image.data, np.uint8, h * image.step).reshape(h, image.step)[:, :row_bytes]
    if image.encoding == "mono16":
        rows = rows[:, int(not image.bigendian) :: 2]  # the more significant byte of each pixel
        pixel_bytes = 1
    pixels = rows if pixel_bytes == 1 else rows.reshape(h, w, pixel_bytes)
    if conversion is None:
        return pixels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)


def decompress(image: CompressedImage) -> NDArray[np.uint8]:
    """Pixels of a JPEG or PNG.

    Returns:
        uint8 [H, W, 3] BGR.

    Raises:
        DecodeError: not a picture.
    """
    data = np.frombuffer(image.data, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise DecodeError(f"{data.size} bytes of format {image.format!r} are no picture")
    return np.asarray(pixels, np.uint8)
