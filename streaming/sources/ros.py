"""A ROS camera topic as a source: `ros:///camera/image_raw?backend=rospy`.

The images come through a process of their own, `python -m ros_bridge.images`, which knows ROS; this side knows a pipe.
"""

import os
import re
import select
import struct
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np

from engine.errors import SourceError, UsageError
from engine.frame import Frame
from streaming.sources.base import Source

SCHEME = "ros://"

# magic, stamp ns, index, unreadable images, height, width, bytes that follow
_RECORD = struct.Struct("<4sqIIIII")
_PARAMETERS = ("backend", "domain", "connect", "listen", "keys", "node")
_CLOSE_PATIENCE_S = 2.0


def is_ros(uri: str) -> bool:
    """Whether `uri` names a ROS topic."""
    return uri.startswith(SCHEME)


def ros_name(uri: str) -> str:
    """Name of the source: the topic without its last part, as ROS names cameras (`/front/image_raw` -> `front`)."""
    parts = [part for part in urlsplit(uri).path.split("/") if part]
    if parts[-1:] == ["compressed"]:
        parts.pop()
    stem = parts[:-1] or parts
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(stem)).strip("-") or "ros"


class RosSource(Source):
    """A sensor_msgs/Image topic, or CompressedImage if its name ends in `/compressed`.

    `t_capture_ns` is the stamp of the image, so what the engine publishes carries the same stamp as the camera.
    Images that came while one was being handed over are lost, with a gap in the index, and counted as `late`.

    Args:
        uri: `ros:///TOPIC?backend=auto&domain=N&connect=ENDPOINT&listen=ENDPOINT&keys=...`, all optional.
        name: name of the source.
        open_timeout_s, read_timeout_s: longest wait for the first and for every further image; the first gets as
            long as it takes to start the process on top.

    Raises:
        UsageError: unknown parameter.
        SourceError: no ROS, no graph, or no image in time.
    """

    live = True

    def __init__(self, uri: str, *, name: str, open_timeout_s: float = 5.0, read_timeout_s: float = 5.0) -> None:
        super().__init__(uri, name)
        self._read_timeout_s = read_timeout_s
        self._next_index = 0
        self._process: subprocess.Popen[bytes] | None = None
        command = _command(uri)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        try:
            # Starting the process takes seconds on a busy machine, and finding the publisher another one.
            self._first: Frame | None = self._receive(open_timeout_s + 10.0)
        except BaseException:
            self.close()
            raise
        if self._first is not None:
            self.size = self._first.image.shape[:2]

    def read(self) -> Frame | None:
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        if self._process is None:
            return None
        frame = self._receive(self._read_timeout_s)
        if frame is not None:
            self.size = frame.image.shape[:2]
        return frame

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # its sign to end
        process.stdout.close()
        try:
            process.wait(_CLOSE_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _receive(self, timeout_s: float) -> Frame | None:
        deadline_s = time.monotonic() + timeout_s
        head = self._read_exactly(_RECORD.size, deadline_s, timeout_s)
        magic, stamp_ns, index, unreadable, height, width, length = _RECORD.unpack(head)
        body = self._read_exactly(length, deadline_s, timeout_s)
        if magic == b"FAIL":
            raise SourceError(f"'{self.uri}': {bytes(body).decode()}")
        if magic != b"FRAM" or length != height * width * 3:
            raise SourceError(f"'{self.uri}': the image process sent {magic!r} instead of a frame; run it by hand")
        newly_unreadable = unreadable - self.dropped.get("corrupt", 0)
        self.count_drop("corrupt", newly_unreadable)
        self.count_drop("late", max(0, index - self._next_index - newly_unreadable))
        self._next_index = index + 1
        image = np.frombuffer(body, np.uint8).reshape(height, width, 3)
        return Frame(image, index, stamp_ns, self.name)

    def _read_exactly(self, count: int, deadline_s: float, timeout_s: float) -> bytearray:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        buffer = bytearray(count)
        view, filled = memoryview(buffer), 0
        while filled < count:
            if not select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                raise SourceError(
                    f"'{self.uri}' sent no image for {timeout_s:g} s (after {self._next_index} images); "
                    "check the topic's name, its publisher and the backend"
                )
            received = os.readv(descriptor, [view[filled:]])
            if not received:
                code = self._process.wait()
                raise SourceError(f"'{self.uri}': the image process ended with code {code}; its output says why")
            filled += received
        return buffer


def _command(uri: str) -> list[str]:
    """Command line of the image process.

    Raises:
        UsageError: no topic, unknown parameter.
    """
    parts = urlsplit(uri)
    if parts.netloc or not parts.path.strip("/"):
        raise UsageError(f"source '{uri}': write ros:///TOPIC with three slashes, e.g. ros:///camera/image_raw")
    parameters = parse_qs(parts.query, keep_blank_values=True)
    unknown = set(parameters) - set(_PARAMETERS)
    if unknown:
        raise UsageError(f"source '{uri}': unknown parameter {min(unknown)!r}; known: {', '.join(_PARAMETERS)}")
    options = [item for name, values in parameters.items() for value in values for item in (f"--{name}", value)]
    node = [] if "node" in parameters else ["--node", "unseen_images"]
    return [sys.executable, "-m", "ros_bridge.images", parts.path, *node, *options]
