"""Draw masks over an image, for the preview and for videos."""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.scene import Object

_FILL = 0.45
"""Share of the object's colour in its area; the texture below stays readable."""

_GOLDEN_RATIO_64 = 0x9E3779B97F4A7C15  # the golden ratio's fraction times 2**64
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.4
_FONT_FOR_PX = 360
"""Shorter side of a picture for which that size is right; larger pictures are looked at smaller."""


@lru_cache(maxsize=4096)
def object_colour(object_id: int) -> tuple[int, int, int]:
    """Vivid BGR colour of an identity, the same wherever it is drawn.

    Hues step by the golden ratio, so that consecutive ids lie far apart on the colour circle.
    """
    hue = (object_id * _GOLDEN_RATIO_64 % 2**64) / 2**64
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], objects: Sequence[Object], scale: float = 0.5
) -> NDArray[np.uint8]:
    """Image with translucent masks, contours and ids.

    Args:
        image: uint8 [H, W, 3] BGR, left as it is.
        labels: uint16 [h, w] covering the same view; labels without an object are not drawn.
        objects: boxes are in pixels of `image`.
        scale: size of the result; drawing at half size takes a quarter of the time.

    Returns:
        uint8 [round(H * scale), round(W * scale), 3] BGR.
    """
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = cast(NDArray[np.uint8], cv2.resize(image, size, interpolation=filtering))
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    palette = np.zeros((2**16, 3), np.uint8)
    drawn = np.zeros(2**16, np.uint8)
    for item in objects:
        palette[item.label] = object_colour(item.id)
        drawn[item.label] = 255
    tint, area = palette[small], drawn[small]
    cv2.copyTo(cv2.addWeighted(canvas, 1 - _FILL, tint, _FILL, 0), area, canvas)
    contour = cv2.bitwise_and(area, (cv2.dilate(small, _NEIGHBOURS) != small).view(np.uint8) * 255)
    contour |= cv2.bitwise_and(area, (cv2.erode(small, _NEIGHBOURS) != small).view(np.uint8) * 255)
    cv2.copyTo(tint, contour, canvas)
    for item in objects:
        _draw_id(canvas, item, size[0] / image.shape[1])
    return canvas


def _draw_id(canvas: NDArray[np.uint8], item: Object, scale: float) -> None:
    """Write the id at the box's upper left corner, dark below light: readable on any background."""
    larger = max(1.0, min(canvas.shape[:2]) / _FONT_FOR_PX)
    font_scale, line = _FONT_SCALE * larger, round(larger)
    (width, height), _ = cv2.getTextSize(str(item.id), _FONT, font_scale, line)
    x = min(max(0, round(item.box[0] * scale) + 2 * line), max(0, canvas.shape[1] - width))
    y = min(max(height, round(item.box[1] * scale) + height + 2 * line), canvas.shape[0] - 1)
    for colour, thickness in (((0, 0, 0), 3 * line), ((255, 255, 255), line)):
        cv2.putText(canvas, str(item.id), (x, y), _FONT, font_scale, colour, thickness, cv2.LINE_AA)
