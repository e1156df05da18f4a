"""ROS image messages as BGR pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.pixels import bgr_pixels
from streaming.ros.cdr import DecodeError
from streaming.ros.messages import CompressedImage, Image


def to_bgr(image: Image) -> NDArray[np.uint8]:
    """Pixels of an image.

    Returns:
        uint8 [H, W, 3] BGR; a view of the message's bytes where they are BGR already.

    Raises:
        DecodeError: an encoding that is not in `engine.pixels.ENCODINGS`, or fewer bytes than height and step promise.
    """
    data = np.frombuffer(image.data, np.uint8)
    try:
        return bgr_pixels(image.encoding, image.height, image.width, image.step, data, bool(image.bigendian))
    except ValueError as error:
        raise DecodeError(str(error)) from None


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
