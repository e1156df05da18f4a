"""Whether the engine is alive: its heartbeats, and how long ago the last one came."""

import contextlib
import time
from pathlib import Path

import zmq

from engine.errors import UsageError
from streaming.authenticator import present_keys
from streaming.endpoint import set_keepalive
from streaming.keys import load_client
from streaming.wire import WireError, decode

DEAD_AFTER_S = 1.5
"""Heartbeats come every second: half a second late is a busy machine, more is an engine that is gone."""


class Health:
    """Reads the state of every source on a socket of its own; call `poll` often.

    Scenes are not waited for: an engine whose camera shows nothing new is alive.

    Args:
        endpoint: of the engine's publisher.
        keys: folder of a client's keys, for an engine with `--keys`.

    Attributes:
        states: source -> state as last told.
        sessions: source -> session of the engine that told it.

    Raises:
        UsageError: the endpoint is malformed, or the folder holds no usable keys.
    """

    def __init__(self, endpoint: str, keys: Path | None = None) -> None:
        own_keys = None if keys is None else load_client(keys, "data")
        self.states: dict[str, str] = {}
        self.sessions: dict[str, str] = {}
        self._heard_s: dict[str, float] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        set_keepalive(self._socket)
        if own_keys is not None:
            present_keys(self._socket, own_keys)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"state/")
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(f"cannot subscribe to {endpoint!r}: {error.strerror}") from None

    def poll(self) -> None:
        """Take in what has come; malformed messages are left out (the subscriber counts them)."""
        with contextlib.suppress(zmq.Again):
            while True:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                with contextlib.suppress(WireError):
                    message = decode(parts)
                    self.heard(message.source, message.session)
                    if message.state is not None:
                        self.states[message.source] = message.state

    def heard(self, source: str, session: str) -> None:
        """Note a sign of life."""
        self._heard_s[source] = time.monotonic()
        self.sessions[source] = session

    def silent_s(self, source: str) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._heard_s[source]

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources heard of so far."""
        return tuple(self._heard_s)

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()
        self._context.term()
