"""Wake a thread that waits in a ZeroMQ poller."""

import contextlib
import socket

import zmq


class Waker:
    """A socket pair: any thread may `wake`, the polling thread waits on `fileno` and calls `clear`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """Make the poller return; never blocks and is safe from any thread, also after `close`."""
        with contextlib.suppress(OSError):  # full: a wake-up is already waiting; closed: nobody is
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Forget all wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def register(self, poller: zmq.Poller) -> None:
        """Let `poller` return on the next wake-up."""
        poller.register(self._reader.fileno(), zmq.POLLIN)

    def close(self) -> None:
        """Release both ends."""
        self._reader.close()
        self._writer.close()
