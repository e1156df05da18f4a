"""Cameras attached to this machine."""

import glob
import os
import sys

import cv2

from engine.errors import SourceError
from engine.frame import Frame
from streaming.clock import CLOCK
from streaming.sources.base import Source
from streaming.sources.decoder import Capture, CaptureFactory, nominal_fps, retrieve_bgr

MAX_FAILED_GRABS = 10


def is_camera(uri: str) -> bool:
    """Whether `uri` is a camera number or a video device."""
    return (uri.isascii() and uri.isdigit()) or uri.startswith(("/dev/video", "/dev/v4l/"))


def camera_identity(uri: str, folder: str = "/dev/v4l/by-id") -> str:
    """The stable link to the camera that `uri` names now, or `uri` where there is none.

    Numbers are given out as cameras are plugged in; a link in `folder` names one device by make and serial.
    """
    if not is_camera(uri) or uri.startswith("/dev/v4l/"):
        return uri
    device = os.path.realpath(f"/dev/video{uri}" if uri.isdigit() else uri)
    links = [link for link in sorted(glob.glob(os.path.join(folder, "*"))) if os.path.realpath(link) == device]
    return links[0] if links else uri


class CameraSource(Source):
    """A local camera; `t_capture_ns` is taken right after the driver hands over a frame.

    Args:
        uri: camera number, /dev/videoN or /dev/v4l/by-id/... (stable across reboots).
        name: name of the source.
        capture_factory: opens the device instead of OpenCV.

    Raises:
        SourceError: no such camera, or it is busy.
    """

    live = True

    def __init__(self, uri: str, *, name: str, capture_factory: CaptureFactory | None = None) -> None:
        super().__init__(uri, name)
        if capture_factory is None:
            _check_present(uri)
            capture_factory = _open_device
        self._index = 0
        self._capture: Capture | None = capture_factory(uri)
        if not self._capture.isOpened():
            self.close()
            raise SourceError(f"camera {uri} cannot be opened; is another program using it, or permission lacking?")
        self.fps = nominal_fps(self._capture)
        width, height = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.size = (height, width) if height > 0 and width > 0 else None

    def read(self) -> Frame | None:
        failed_grabs = 0
        while self._capture is not None:
            if not self._capture.grab():
                failed_grabs += 1
                if failed_grabs >= MAX_FAILED_GRABS:
                    self.close()
                    raise SourceError(
                        f"camera {self.uri} delivered no frame in {failed_grabs} tries "
                        f"(after {self._index} frames); is it unplugged?"
                    )
                continue
            t_capture_ns = CLOCK.now_ns()
            index = self._index
            self._index += 1
            image = retrieve_bgr(self._capture)
            if image is not None:
                self.size = image.shape[:2]
                return Frame(image, index, t_capture_ns, self.name)
            self.count_drop("corrupt")
        return None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _check_present(uri: str) -> None:
    if uri.isdigit() and not sys.platform.startswith("linux"):
        return  # numbers are not device files there; opening tells
    device = f"/dev/video{uri}" if uri.isdigit() else uri
    if not os.path.exists(device):
        present = " ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise SourceError(f"camera {uri} does not exist ({device}); present: {present}")


def _open_device(uri: str) -> Capture:
    if not sys.platform.startswith("linux"):
        return cv2.VideoCapture(int(uri) if uri.isdigit() else uri)
    # The driver layer only knows /dev/videoN, not the stable links to it.
    capture = cv2.VideoCapture(int(uri) if uri.isdigit() else os.path.realpath(uri), cv2.CAP_V4L2)
    if capture.isOpened():
        # One buffer keeps the age of a frame below one frame time; drivers that cannot do it ignore it.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture
