"""The one place that opens OpenCV captures and turns what they deliver into BGR bytes."""

import math
import os
from collections.abc import Callable
from typing import Protocol

# FFmpeg reads its log level once, when the first capture of the process opens.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from engine.errors import SourceError

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Our one line replaces the decoders' chatter; set both variables to read theirs.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Capture(Protocol):
    """The part of cv2.VideoCapture that sources use; tests hand in their own."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, np.ndarray | None]: ...
    def get(self, prop: int) -> float: ...
    def set(self, prop: int, value: float) -> bool: ...
    def release(self) -> None: ...


CaptureFactory = Callable[[str], Capture]


def open_ffmpeg(
    uri: str,
    *,
    open_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    threads: int | None = None,
) -> Capture:
    """Open `uri` with FFmpeg; the timeouts and the decoder's thread count only count at construction."""
    parameters: list[int] = []
    if open_timeout_s is not None:
        parameters += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, max(1, round(open_timeout_s * 1000))]
    if read_timeout_s is not None:
        parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, round(read_timeout_s * 1000))]
    if threads is not None:
        parameters += [cv2.CAP_PROP_N_THREADS, threads]
    return cv2.VideoCapture(uri, cv2.CAP_FFMPEG, parameters)


def retrieve_bgr(capture: Capture) -> np.ndarray | None:
    """Decode the grabbed frame to uint8 [H, W, 3] BGR, or None when it is corrupt."""
    ok, image = capture.retrieve()
    return to_bgr8(image) if ok and image is not None and image.size else None


def nominal_fps(capture: Capture) -> float | None:
    """Frames per second as the container states it, or None when it states nothing plausible."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def promised_frames(capture: Capture) -> int | None:
    """Frames the container promises, or None when it is endless or does not say."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else None


def to_bgr8(image: np.ndarray) -> np.ndarray:
    """Convert what cameras and files deliver to uint8 [H, W, 3] BGR.

    Args:
        image: [H, W] or [H, W, 1 | 3 | 4] of uint8, uint16 (full range) or float (0 ... 1); alpha is ignored.

    Raises:
        SourceError: another element type or number of channels.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype.kind == "f":
        image = (np.nan_to_num(image).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise SourceError(f"images of type {image.dtype} are not supported; use uint8, uint16 or float in 0 ... 1")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return np.ascontiguousarray(image)
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if channels == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    raise SourceError(f"images with {channels} channels are not supported; use 1, 3 or 4")
