"""Network streams over real sockets."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import SourceError
from engine.frame import Frame
from streaming.sources import open_source

FRAMES = 30
PATIENCE_S = 25.0
"""Below the half minute that the decoder waits when nobody limits it, far above the limits set here."""


@pytest.fixture(scope="module")
def transport_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "clip.ts"
    codec = cv2.VideoWriter_fourcc(*"mpg2")
    # The writer remarks on the codec's tag in the container; the file is valid all the same.
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25.0, (64, 48))
    assert writer.isOpened()
    for index in range(FRAMES):
        writer.write(np.full((48, 64, 3), 20 + 7 * index, np.uint8))
    writer.release()
    return path


class TcpSender:
    """Accepts one connection after the other and lets `talk` speak on it."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._talk = talk
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._talk(connection)

    def close(self) -> None:
        # shutdown wakes the accept that close alone would leave waiting
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()


@pytest.fixture
def tcp_sender() -> Iterator[Callable[[Callable[[socket.socket], None]], TcpSender]]:
    senders: list[TcpSender] = []

    def start(talk: Callable[[socket.socket], None]) -> TcpSender:
        senders.append(TcpSender(talk))
        return senders[-1]

    yield start
    for sender in senders:
        sender.close()


def assert_is_the_clip(levels: list[float]) -> None:
    assert len(levels) == FRAMES
    assert levels == pytest.approx([20 + 7 * i for i in range(FRAMES)], abs=8)


def test_a_transport_stream_over_tcp_ends_with_the_connection(
    transport_stream: Path, tcp_sender: Callable[..., TcpSender]
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(transport_stream.read_bytes())
        connection.close()

    sender = tcp_sender(talk)
    before_ns = time.time_ns()
    with open_source(f"tcp://127.0.0.1:{sender.port}") as source:
        assert source.live
        assert source.name == f"127.0.0.1-{sender.port}"
        frames = list(source)
        assert source.size == (48, 64)
    assert_is_the_clip([float(frame.image.mean()) for frame in frames])
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert all(frame.pts_ns is None and frame.t_capture_ns > before_ns for frame in frames)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_transport_stream_over_http(transport_stream: Path) -> None:
    handler = partial(QuietHandler, directory=str(transport_stream.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with open_source(f"http://127.0.0.1:{server.server_port}/clip.ts") as source:
                levels = [float(frame.image.mean()) for frame in source]
        finally:
            server.shutdown()
            thread.join()
    assert_is_the_clip(levels)


def test_a_sender_that_falls_silent_is_an_error_within_the_limit(
    transport_stream: Path, tcp_sender: Callable[..., TcpSender]
) -> None:
    sender = tcp_sender(lambda connection: connection.sendall(transport_stream.read_bytes()))
    with open_source(f"tcp://127.0.0.1:{sender.port}", read_timeout_s=0.4) as source:
        start_s = time.monotonic()
        taken: list[Frame] = []
        with pytest.raises(SourceError, match=r"sent nothing for 0\.4 s") as caught:
            taken.extend(source)
        assert time.monotonic() - start_s < PATIENCE_S
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp"])
def test_a_refused_connection_is_one_line_without_the_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError) as caught:
        open_source(f"{scheme}://user:secret@127.0.0.1:{port}/x", open_timeout_s=2.0)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    assert f"127.0.0.1:{port}" in message


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp"])
def test_a_server_that_never_answers_is_given_up_in_bounded_time(
    scheme: str, tcp_sender: Callable[..., TcpSender]
) -> None:
    sender = tcp_sender(lambda connection: None)
    start_s = time.monotonic()
    with pytest.raises(SourceError, match=r"limit 0\.5 s"):
        open_source(f"{scheme}://127.0.0.1:{sender.port}/x", open_timeout_s=0.5)
    assert time.monotonic() - start_s < PATIENCE_S


def test_udp_without_a_sender_is_given_up_in_bounded_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_s = time.monotonic()
    with pytest.raises(SourceError, match="cannot open"):
        open_source(f"udp://127.0.0.1:{port}", open_timeout_s=0.5)
    assert time.monotonic() - start_s < PATIENCE_S
