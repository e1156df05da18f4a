"""Ports for servers that must be told one before they run."""

import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below what systems lend to outgoing connections: nobody is given a port of these in the meantime."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {_FIRST} to {_LAST}")
