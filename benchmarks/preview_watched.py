"""An engine with its live page, and viewers who look and look away."""

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlsplit

import zmq

from engine.errors import SourceError
from streaming.preview.message import unpack
from streaming.wire import decode

_SETTLE_S = 0.3
"""After a change, until the last request is answered and the caches are warm."""

_FIRST_S = 1.0
"""Of a run, left out."""

_CPU_CLOCK = 2
"""Linux: the clock of the processor time of a process, `CPUCLOCK_SCHED`."""


class Viewer(threading.Thread):
    """Asks for message after message while `watching` is set, until the engine is gone.

    Attributes:
        watching: cleared while the viewer looks away.
        pictures: how many came with a picture.
        bytes: received in all.
    """

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._url = url
        self.watching = threading.Event()
        self.watching.set()
        self.pictures = 0
        self.bytes = 0

    def run(self) -> None:
        source, number = "", 0
        connection = HTTPConnection(urlsplit(self._url).netloc, timeout=20)
        # An engine that has ended refuses or cuts the connection: the end of this viewer.
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            while self.watching.wait():
                connection.request("GET", f"/feed?viewer={self.name}&source={quote(source)}&after={number}")
                content = connection.getresponse().read()
                self.bytes += len(content)
                state, _, jpeg = unpack(content)
                number = state.get("number", number)
                source = source or next((item["name"] for item in state["sources"]), "")
                self.pictures += bool(jpeg)


class Watched:
    """An engine at work and its viewers, who look or look away.

    Args:
        pace: frames per second of a live scene, or "none": every frame, as fast as it goes.
        viewers: how many.
        size: HxW of the frames.

    Raises:
        SourceError: the engine does not start; its last line is given.
    """

    def __init__(self, pace: str, viewers: int, size: str) -> None:
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        source = f"demo://?frames=0&size={size}" + ("" if pace == "none" else f"&live=1&fps={pace}")
        command = [sys.executable, "-m", "engine.run", "--source", source, "--preview", "0"]
        command += ["--publish", f"ipc://{folder}/masks", *(["--every-frame"] if pace == "none" else [])]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.viewers: list[Viewer] = []
        self._stack.callback(self._end)
        self.viewers += [Viewer(self._page(), f"v{number}") for number in range(viewers)]
        context = self._stack.enter_context(zmq.Context())
        self._socket = self._stack.enter_context(context.socket(zmq.SUB))
        self._socket.setsockopt(zmq.SUBSCRIBE, b"masks/demo/provisional/")
        self._socket.connect(f"ipc://{folder}/masks")
        for viewer in self.viewers:
            viewer.start()
        # The first frame comes once everything is loaded.
        if not self._socket.poll(60_000):
            self.close()
            raise SourceError("the engine published nothing within 60 s; run it alone to see why")
        self._frames(_FIRST_S)

    def close(self) -> None:
        """End the engine and its viewers."""
        self._stack.close()

    def window(self, seconds: float, watching: bool) -> dict[str, float]:
        """Frame rate, capture to publishing, processor time and pictures of `seconds` with or without viewers.

        Raises:
            SourceError: too few frames came to say anything.
        """
        for viewer in self.viewers:
            (viewer.watching.set if watching else viewer.watching.clear)()
        self._frames(_SETTLE_S)
        pictures, sent = sum(v.pictures for v in self.viewers), sum(v.bytes for v in self.viewers)
        frames = self._frames(seconds)
        if len(frames) < 2:
            raise SourceError(f"{len(frames)} frames within {seconds:g} s: choose longer windows with --seconds")
        (first_s, first_cpu_s, _), (last_s, last_cpu_s, _) = frames[0], frames[-1]
        shown = sum(v.pictures for v in self.viewers) - pictures
        if watching and not shown:
            raise SourceError(f"no picture came within {seconds:g} s: choose windows of 0.5 to 5 s with --seconds")
        return {
            "fps": (len(frames) - 1) / (last_s - first_s),
            "age_p50_ms": statistics.median(age_ms for _, _, age_ms in frames),
            "cpu_ms_per_frame": 1e3 * (last_cpu_s - first_cpu_s) / (len(frames) - 1),
            "pictures_per_s": shown / len(self.viewers) / seconds,
            "kb_per_s": (sum(v.bytes for v in self.viewers) - sent) / 1000 / seconds,
        }

    def _frames(self, seconds: float) -> list[tuple[float, float, float]]:
        """When each frame of the next `seconds` came, the engine's processor time by then, and its age in ms."""
        found = []
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if self._socket.poll(1 + int(left_s * 1e3)):
                message = decode(self._socket.recv_multipart(), lazy=True)
                cpu_s = time.clock_gettime(~self._process.pid << 3 | _CPU_CLOCK)
                found.append((time.monotonic(), cpu_s, (message.t_publish_ns - message.t_capture_ns) / 1e6))
        return found

    def _page(self) -> str:
        """Address of the page, from the log."""
        assert self._process.stderr is not None
        line = ""
        for line in self._process.stderr:
            if found := re.search(r"live page: (\S+)", line):
                return found[1]
        self.close()
        raise SourceError(f"the engine ended with exit code {self._process.returncode}: {line.strip()}")

    def _end(self) -> None:
        self._process.terminate()
        self._process.communicate()
        for viewer in self.viewers:
            viewer.watching.set()  # to find that nobody answers
