"""Encryption and authentication of ZeroMQ sockets (CURVE, ZAP): wrong keys get nothing."""

import logging
import time
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from engine.errors import UsageError
from streaming.keys import ClientKeys, ServerKeys, is_authorised

_log = logging.getLogger("unseen.keys")

_LOG_EVERY_S = 10.0
"""A refused client tries again ten times a second, or with ever new keys: its lines must not fill the disk."""

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


class _AuthorisedClients:
    """Looks a client's key up in the folder at every handshake."""

    def __init__(self, keys: ServerKeys) -> None:
        self._keys = keys
        self._refused = 0
        self._log_at_s = 0.0

    def callback(self, domain: str, key: bytes) -> bool:
        """True lets the client in."""
        if is_authorised(self._keys, key):
            return True
        self._refused += 1
        if time.monotonic() >= self._log_at_s:
            self._log_at_s = time.monotonic() + _LOG_EVERY_S
            _log.warning("refused: channel=%s key=%s is not authorised; %d so far", domain, key.decode(), self._refused)
        return False


def require_keys(context: Context, socket: Socket, keys: ServerKeys) -> ThreadAuthenticator:
    """Let only authorised clients connect to `socket`; call it before binding.

    Args:
        context: of `socket`; it can have one authenticator only.

    Returns:
        The running authenticator; stop it after the socket was closed and before the context ends. Without one,
        libzmq would let in everybody who knows the engine's public key.

    Raises:
        UsageError: the context has an authenticator already.
    """
    authenticator = ThreadAuthenticator(context)
    authenticator.configure_curve_callback(domain=keys.channel, credentials_provider=_AuthorisedClients(keys))
    try:
        authenticator.start()
    except zmq.ZMQError as error:
        raise UsageError(f"keys for {keys.channel}: this ZeroMQ context cannot take them ({error.strerror})") from None
    for option, value in (
        (zmq.CURVE_SERVER, 1),
        (zmq.CURVE_PUBLICKEY, keys.public),
        (zmq.CURVE_SECRETKEY, keys.secret),
        (zmq.ZAP_DOMAIN, keys.channel.encode()),
    ):
        _set(socket, option, value)
    return authenticator


def present_keys(socket: Socket, keys: ClientKeys) -> None:
    """Make `socket` prove who it is, and accept no other server than the one it knows; before connecting."""
    for option, value in (
        (zmq.CURVE_PUBLICKEY, keys.public),
        (zmq.CURVE_SECRETKEY, keys.secret),
        (zmq.CURVE_SERVERKEY, keys.server),
    ):
        _set(socket, option, value)


def _set(socket: Socket, option: int, value: Any) -> None:
    socket.setsockopt(option, value)
