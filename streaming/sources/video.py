"""Video files, every frame in order."""

import logging
import math
import os

import cv2
import numpy as np

from engine.errors import SourceError
from engine.frame import Frame
from streaming.clock import CLOCK
from streaming.sources.base import Source
from streaming.sources.decoder import Capture, nominal_fps, open_ffmpeg, promised_frames, retrieve_bgr

log = logging.getLogger(__name__)

# A decoder answers "no" both for a damaged frame and at the end of the file. Each "no" consumes one frame, so
# trying on is bounded by the frames the container still promises, and by these limits.
MAX_FAILURES_IN_A_ROW = 1000
MAX_FAILURES_UNKNOWN_LENGTH = 30
# Containers without an index state their length through duration times rate, which rounds.
FRAME_COUNT_SLACK = 2


class VideoSource(Source):
    """A video file.

    Damaged frames are counted as "corrupt" and leave a gap in the index; frames that the container
    promises and that never come are counted as "missing" at the end.

    Args:
        uri: path of the file.
        name: name of the source.
        loop: start again at the end; index and presentation time go on rising.

    Raises:
        SourceError: no such file, not a video, or no frame in it can be decoded.
    """

    def __init__(self, uri: str, *, name: str, loop: bool = False) -> None:
        super().__init__(uri, name)
        self._loop = loop
        # An absolute path, because FFmpeg takes "take:1.mp4" for a protocol.
        self._path = os.path.abspath(uri)
        self._check_path()
        self._index = 0
        self._pts_offset_ns = 0
        self._pts_ns = 0
        self._position = 0
        self._capture: Capture | None = self._open()
        self.fps = nominal_fps(self._capture)
        self._promised = promised_frames(self._capture)
        self.frame_count = None if loop else self._promised
        self._ready = self._decode()
        if self._ready is None:
            self.close()
            raise SourceError(
                f"no frame of video '{uri}' can be decoded (container promises {self._promised or 0}); "
                "check the file with ffprobe or convert it"
            )
        self.size = self._ready.shape[:2]

    def read(self) -> Frame | None:
        if self._capture is None:
            return None
        image = self._ready if self._ready is not None else self._decode()
        self._ready = None
        if image is None:
            image = self._rewind() if self._loop else None
        if image is None:
            self.close()
            return None
        frame = Frame(image, self._index, CLOCK.now_ns(), self.name, pts_ns=self._pts_ns)
        self._index += 1
        return frame

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
        self._ready = None

    def _check_path(self) -> None:
        if not os.path.exists(self._path):
            raise SourceError(f"video '{self.uri}' does not exist (working directory {os.getcwd()}); check the path")
        if os.path.isdir(self._path):
            raise SourceError(f"'{self.uri}' is a folder, not a video file; name a file in it")
        if not os.path.isfile(self._path):
            raise SourceError(f"'{self.uri}' is not a regular file; name a video file, or stream it over tcp://")
        if not os.access(self._path, os.R_OK):
            raise SourceError(f"video '{self.uri}' may not be read by this user; change its permissions")
        if os.path.getsize(self._path) == 0:
            raise SourceError(f"video '{self.uri}' is empty (0 bytes); record it again")

    def _open(self) -> Capture:
        capture = open_ffmpeg(self._path)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"'{self.uri}' ({os.path.getsize(self._path)} bytes) cannot be opened as a video: "
                "unknown format, or cut off before its index was written; check it with ffprobe or convert it"
            )
        return capture

    def _decode(self) -> np.ndarray | None:
        """Decode the next frame that can be decoded, or return None at the end of the file."""
        assert self._capture is not None
        failures = 0
        while True:
            image = retrieve_bgr(self._capture) if self._capture.grab() else None
            if image is not None:
                break
            failures += 1
            if failures > self._patience():
                self._finish()
                return None
        self.count_drop("corrupt", failures)
        self._position += failures
        self._index += failures
        self._pts_ns = self._pts_offset_ns + self._file_time_ns()
        self._position += 1
        return image

    def _patience(self) -> int:
        if self._promised is None:
            return MAX_FAILURES_UNKNOWN_LENGTH
        return min(MAX_FAILURES_IN_A_ROW, max(0, self._promised - self._position))

    def _file_time_ns(self) -> int:
        assert self._capture is not None
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        if math.isfinite(stamp_ms) and (stamp_ms > 0 or (stamp_ms == 0 and self._position == 0)):
            return round(stamp_ms * 1e6)
        return round(self._position * 1e9 / (self.fps or 30.0))

    def _finish(self) -> None:
        missing = (self._promised or 0) - self._position
        if self._position and missing > FRAME_COUNT_SLACK:
            self.count_drop("missing", missing)
            log.warning("video '%s' ends after frame %d of %d", self.uri, self._position, self._promised)

    def _rewind(self) -> np.ndarray | None:
        assert self._capture is not None
        self._capture.release()
        self._capture = self._open()
        self._position = 0
        self._pts_offset_ns = self._pts_ns + round(1e9 / (self.fps or 30.0))
        return self._decode()
