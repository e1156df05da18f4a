"""A network camera that can be killed, frozen, cut and made to send rubbish, for tests and the soak run."""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence

import cv2
import numpy as np

_PORT_WAIT_S = 20.0
"""While nobody listens, the port may be lent to a connection for a moment."""


def picture(index: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A scene in which something moves; uint8 [H, W, 3]."""
    height, width = size
    rng = np.random.default_rng(7)
    image = cv2.resize(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8), (width, height))
    cv2.circle(image, (20 + (4 * index) % (width - 40), height // 2), height // 6, (40, 220, 250), -1)
    return image


class MjpegServer:
    """Motion JPEG over HTTP, as cheap network cameras send it.

    Args:
        fps: pictures per second.
        jpegs: sent over and over; None: a small scene with a moving ball.

    Attributes:
        port: where it listens, also after `start` again.
        size: (height, width) of the pictures from now on.
        frozen: accept, and send nothing (more).
        corrupt: send every second picture with its inside overwritten.
        sent: pictures sent so far.
        accepted: connections so far.
    """

    def __init__(self, fps: float = 25.0, jpegs: Sequence[bytes] | None = None) -> None:
        self.fps = fps
        self._jpegs = jpegs
        self.size = (120, 160)
        self.frozen = False
        self.corrupt = False
        self.sent = 0
        self.accepted = 0
        self.port = 0
        self._cut = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        """Of the latest connections; those that have ended are let go."""
        self._listener: socket.socket | None = None
        self.start()

    @property
    def uri(self) -> str:
        """Where the pictures are."""
        return f"http://127.0.0.1:{self.port}/video"

    def start(self) -> None:
        """Listen (again, on the same port).

        Raises:
            OSError: somebody else has the port, for longer than a connection takes to end.
        """
        give_up_s = time.monotonic() + _PORT_WAIT_S
        while self._listener is None:
            try:
                self._listener = socket.create_server(("127.0.0.1", self.port))
            except OSError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.1)
        self.port = self._listener.getsockname()[1]
        self._threads.append(threading.Thread(target=self._accept, args=(self._listener,), daemon=True))
        self._threads[-1].start()

    def kill(self) -> None:
        """Be gone, as after a crash."""
        assert self._listener is not None
        # shutdown wakes the accept that close alone would leave waiting
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def cut_mid_frame(self) -> None:
        """End every connection in the middle of a picture."""
        self._cut.set()

    def close(self) -> None:
        """End for good."""
        if self._listener is not None:
            self.kill()
        for thread in self._threads:
            thread.join(5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._connections.add(connection)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._talk(connection)
        except OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        while self.frozen:
            time.sleep(0.01)
            if connection.fileno() < 0 or self._listener is None:
                return
        connection.recv(4096)
        connection.sendall(
            b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close\r\n\r\n"
        )
        due_s = time.monotonic()
        while self._listener is not None:
            if self.frozen:
                time.sleep(0.01)
                continue
            jpeg = self._jpeg()
            if self.corrupt and self.sent % 2:
                middle = len(jpeg) // 2
                jpeg = jpeg[: middle - 200] + bytes(200) + jpeg[middle:]
            part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)
            if self._cut.is_set():
                connection.sendall(part[: len(part) // 2])
                self._cut.clear()
                return
            connection.sendall(part)
            self.sent += 1
            due_s += 1.0 / self.fps
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _jpeg(self) -> bytes:
        if self._jpegs is not None:
            return self._jpegs[self.sent % len(self._jpegs)]
        return bytes(cv2.imencode(".jpg", picture(self.sent, self.size))[1].tobytes())
