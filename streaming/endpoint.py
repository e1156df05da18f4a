"""Where sockets may be bound: this machine only, unless the user insists."""

import ipaddress
import socket as sockets
import stat
from pathlib import Path

import zmq

from engine.errors import UsageError

_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 3, 1, 3
_TRANSPORTS = ("tcp", "ipc", "inproc")


def is_loopback(endpoint: str) -> bool:
    """True for 127.0.0.0/8, ::1, localhost, ipc and inproc: only this machine can reach them."""
    transport, _, address = endpoint.partition("://")
    if transport != "tcp":
        return transport in ("ipc", "inproc")
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def set_keepalive(socket: "zmq.Socket[bytes]") -> None:
    """Notice within about 6 s that a peer's machine, or the way to it, is gone.

    TCP probes instead of ZMTP heartbeats, which hurt a one-way stream twice: a slow reader cannot answer
    before it has read its backlog and is cut off, and an answer that arrives after an orderly close resets
    the connection, which throws away what the reader had not taken yet (measured: the last 1 to 14 of 40
    large messages in 7 of 9 runs on a busy machine, none without heartbeats).
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_PROBES)


def check_reach(endpoint: str, *, insecure: bool = False, authenticated: bool = False) -> None:
    """Raise `UsageError` for an endpoint that is malformed, or that others reach without keys or `insecure`."""
    transport, separator, address = endpoint.partition("://")
    if not separator or transport not in _TRANSPORTS or not address:
        needed = "tcp://127.0.0.1:5555, ipc:///run/user/NAME or inproc://NAME"
        raise UsageError(f"endpoint {endpoint!r} cannot be used: write it like {needed}")
    if not is_loopback(endpoint) and not insecure and not authenticated:
        raise UsageError(
            f"endpoint {endpoint!r} can be reached from other machines without encryption: "
            "bind 127.0.0.1, add --keys DIR, or --insecure on a network you trust"
        )


def bind(socket: "zmq.Socket[bytes]", endpoint: str, *, insecure: bool = False, authenticated: bool = False) -> str:
    """Bind `socket` and return the endpoint in effect, with the port the system chose for port 0 or `*`.

    Args:
        insecure: also bind what others can reach; the traffic is neither encrypted nor authenticated.
        authenticated: `socket` asks for keys, so others may reach it.

    Raises:
        UsageError: malformed, in use, not on this machine, or reachable by others without keys or `insecure`.
    """
    check_reach(endpoint, insecure=insecure, authenticated=authenticated)
    transport, _, address = endpoint.partition("://")
    if transport == "tcp":
        _check_port(endpoint, address.rpartition(":")[2])
        socket.setsockopt(zmq.IPV6, int("[" in address))
    if transport == "ipc" and not address.startswith("@"):
        _prepare_path(endpoint, Path(address), private=not insecure and not authenticated)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise UsageError(f"endpoint {endpoint} is in use: stop its owner or choose another one") from None
        raise UsageError(f"endpoint {endpoint} cannot be bound: {error.strerror}") from None
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _check_port(endpoint: str, port: str) -> None:
    # libzmq wraps larger numbers around silently and would serve on another port.
    if port != "*" and not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UsageError(f"endpoint {endpoint!r} has port {port!r}: up to 65535, or * for a free one, is needed")


def _prepare_path(endpoint: str, path: Path, *, private: bool) -> None:
    """Make a private folder for the socket file; refuse one others can enter, and a path that is served already.

    libzmq removes an existing socket file before it binds, which would cut off its owner without a word.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        if private and mode & 0o077:
            raise UsageError(
                f"endpoint {endpoint} cannot be bound: others can enter {path.parent} (mode {mode:04o}, at most 0700 "
                "is needed); chmod 700 it, or choose a folder of your own"
            )
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return  # nobody there, or what a dead process left behind
    except OSError as error:
        raise UsageError(f"endpoint {endpoint} cannot be bound: {error}") from None
    raise UsageError(f"endpoint {endpoint} is in use: stop its owner or choose another one")
