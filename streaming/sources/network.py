"""Streams over the network: RTSP cameras, HTTP, and MPEG-TS over TCP or UDP."""

import time

from engine.errors import SourceError
from engine.frame import Frame
from streaming.clock import CLOCK
from streaming.sources.base import Source
from streaming.sources.decoder import Capture, nominal_fps, open_ffmpeg, promised_frames, retrieve_bgr

SCHEMES = ("rtsp", "rtsps", "http", "https", "tcp", "udp")

# A damaged frame makes one read fail and costs no time; more in a row means that the sender is gone.
MAX_FAILURES_IN_A_ROW = 10
# After one timeout the decoder may still hand out what it had; over RTSP each further try waits as long again.
MAX_TIMEOUTS_IN_A_ROW = 2


class NetworkSource(Source):
    """A network stream, decoded by FFmpeg.

    The end of the connection is the end of the stream; silence for longer than the read timeout is an error.

    Args:
        uri: rtsp://, rtsps://, http://, https://, tcp:// or udp:// address.
        name: name of the source.
        open_timeout_s: longest wait for the connection and the first packets.
        read_timeout_s: longest wait for a frame.

    Raises:
        SourceError: unknown scheme, or nothing that can be decoded arrives within the time.
    """

    live = True

    def __init__(self, uri: str, *, name: str, open_timeout_s: float = 5.0, read_timeout_s: float = 5.0) -> None:
        super().__init__(uri, name)
        scheme = uri.partition("://")[0].lower()
        if scheme not in SCHEMES:
            known = " ".join(f"{known}://" for known in SCHEMES)
            raise SourceError(f"unknown scheme '{scheme}://' in '{self.display_uri}'; known: {known}")
        self._read_timeout_s = read_timeout_s
        self._index = 0
        self._timed_out_s: float | None = None
        start_s = time.monotonic()
        # One decoding thread: more of them hold back a frame each, and a stream is no faster than its sender.
        self._capture: Capture | None = open_ffmpeg(
            uri, open_timeout_s=open_timeout_s, read_timeout_s=read_timeout_s, threads=1
        )
        if not self._capture.isOpened():
            self.close()
            waited_s = time.monotonic() - start_s
            raise SourceError(
                f"cannot open '{self.display_uri}': refused, unreachable or no video in it "
                f"(gave up after {waited_s:.1f} s, limit {open_timeout_s:g} s); check address and sender"
            )
        self.fps = nominal_fps(self._capture)
        self.frame_count = promised_frames(self._capture)

    def read(self) -> Frame | None:
        failures = timeouts = 0
        while self._capture is not None and failures < MAX_FAILURES_IN_A_ROW and timeouts < MAX_TIMEOUTS_IN_A_ROW:
            start_s = time.monotonic()
            grabbed = self._capture.grab()
            if time.monotonic() - start_s >= 0.9 * self._read_timeout_s:
                self._timed_out_s = time.monotonic()
                timeouts += not grabbed
            t_capture_ns = CLOCK.now_ns()
            image = retrieve_bgr(self._capture) if grabbed else None
            if image is not None:
                self.count_drop("corrupt", failures)
                self._index += failures
                frame = Frame(image, self._index, t_capture_ns, self.name)
                self._index += 1
                self.size = image.shape[:2]
                return frame
            failures += 1
        self.close()
        # What the decoder still had came after the timeout, so look back a little.
        if self._timed_out_s is not None and time.monotonic() - self._timed_out_s < 1.0:
            raise SourceError(
                f"'{self.display_uri}' sent nothing for {self._read_timeout_s:g} s "
                f"(after {self._index} frames); check sender and network"
            )
        return None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
