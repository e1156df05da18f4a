"""Pixels of every byte layout that ROS names, as BGR; without cv_bridge (which needs a NumPy of its own)."""

import cv2
import numpy as np
from numpy.typing import NDArray

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
"""Of sensor_msgs/Image; depth images and label maps of 32 bits have others."""


def bgr_pixels(
    encoding: str, height: int, width: int, step: int, data: NDArray[np.uint8], bigendian: bool = False
) -> NDArray[np.uint8]:
    """Pixels of an image.

    Args:
        step: bytes from one row to the next.
        data: uint8 [at least height * step].
        bigendian: order of the bytes of a 16-bit pixel.

    Returns:
        uint8 [height, width, 3]; a view of `data` where it is BGR already.

    Raises:
        ValueError: an encoding that is not in `ENCODINGS`, or fewer bytes than height and step promise.
    """
    if encoding not in _CONVERSIONS:
        raise ValueError(f"image encoding {encoding!r} is not supported: {', '.join(ENCODINGS)}")
    pixel_bytes, conversion = _CONVERSIONS[encoding]
    row_bytes = width * pixel_bytes
    if not height or not width or step < row_bytes or data.nbytes < height * step:
        raise ValueError(
            f"image of {height} x {width} {encoding} has step {step} and {data.nbytes} bytes: "
            f"at least {row_bytes} and {height * step} are needed"
        )
    rows = data[: height * step].reshape(height, step)[:, :row_bytes]
    if encoding == "mono16":
        rows = rows[:, int(not bigendian) :: 2]  # the more significant byte of each pixel
        pixel_bytes = 1
    pixels = rows if pixel_bytes == 1 else rows.reshape(height, width, pixel_bytes)
    if conversion is None:
        return pixels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)
