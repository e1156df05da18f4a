"""Videos and folders of pictures, every frame in order; a damaged frame leaves a gap in the index."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# FFmpeg reads its log level once, when the first capture of the process opens; our one line replaces its chatter.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from engine.errors import SourceError
from engine.frame import Frame
from learning.mine.recordings import PICTURES

_PATIENCE = 1000
"""Damaged frames in a row after which a video counts as ended; never more than the container still promises."""

_PATIENCE_UNKNOWN_LENGTH = 30
_SLACK = 2
"""Frames a container may promise too many: some state duration times rate, which rounds."""

_NOMINAL_HZ = 30.0
"""Rate assumed where nothing states one."""


class VideoView:
    """A video file, decoded on one thread: workers share the cores by themselves.

    Args:
        path: local file.
        name: source of its frames.

    Raises:
        SourceError: it cannot be opened as a video.
    """

    timed = False

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.lost: Counter[str] = Counter()
        self._path = path
        # An absolute path, because FFmpeg takes "take:1.mp4" for a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            size = path.stat().st_size if path.exists() else 0
            raise SourceError(f"'{path}' ({size} bytes) cannot be opened as a video; check it with ffprobe")
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._promised = int(count) if 0 < count < 1e9 else None
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._rate_hz = rate if math.isfinite(rate) and 0 < rate <= 1000 else _NOMINAL_HZ

    def frames(self) -> Iterator[Frame]:
        """Frames with their presentation times.

        Raises:
            SourceError: none can be decoded.
        """
        index = failures = 0
        try:
            while True:
                image = self._next()
                if image is None:
                    failures += 1
                    if failures > self._patience(index + failures - 1):
                        break
                    continue
                self._lose("corrupt", failures)
                index, failures = index + failures, 0
                pts_ns = self._pts_ns(index)
                yield Frame(image, index, pts_ns, self.name, pts_ns=pts_ns)
                index += 1
        finally:
            self._capture.release()
        if index == 0:
            raise SourceError(f"'{self._path}': no frame can be decoded ({self._promised or 0} promised)")
        missing = (self._promised or 0) - index
        self._lose("missing", missing if missing > _SLACK else 0)

    def _next(self) -> np.ndarray | None:
        ok, image = self._capture.read()
        return image if ok and image is not None and image.size else None

    def _patience(self, position: int) -> int:
        if self._promised is None:
            return _PATIENCE_UNKNOWN_LENGTH
        return min(_PATIENCE, max(0, self._promised - position))

    def _pts_ns(self, index: int) -> int:
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        if math.isfinite(stamp_ms) and (stamp_ms > 0 or (stamp_ms == 0 and index == 0)):
            return round(stamp_ms * 1e6)
        return round(index * 1e9 / self._rate_hz)

    def _lose(self, cause: str, frames: int) -> None:
        if frames:
            self.lost[cause] += frames


class PictureView:
    """The pictures of a folder in natural order, taken for 30 per second.

    Args:
        folder: local folder.
        name: source of its frames.
    """

    timed = False

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.lost: Counter[str] = Counter()
        self._folder = folder
        found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
        self._paths = sorted(found, key=lambda path: _natural(path.name))

    def frames(self) -> Iterator[Frame]:
        """Pictures that can be decoded, as three channels of eight bits.

        Raises:
            SourceError: none can.
        """
        shown = 0
        for index, path in enumerate(self._paths):
            image = _picture(path)
            if image is None:
                self.lost["corrupt"] += 1
                continue
            shown += 1
            yield Frame(image, index, round(index * 1e9 / _NOMINAL_HZ), self.name)
        if not shown:
            raise SourceError(f"'{self._folder}': none of its {len(self._paths)} pictures can be decoded")


def _picture(path: Path) -> np.ndarray | None:
    try:
        data = np.fromfile(path, np.uint8)
        # From memory: for an empty file OpenCV would write a warning of its own.
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `f2.png` before `f10.png`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]
