"""Read masks from a publisher: always the newest, or every one, without falling behind."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import zmq

from engine.errors import UsageError
from streaming.authenticator import present_keys
from streaming.endpoint import set_keepalive
from streaming.inbox import EveryInbox, Inbox, NewestInbox
from streaming.keys import ClientKeys, load_client
from streaming.waker import Waker
from streaming.wire import Message, State, WireError, check_source_name, decode, mask_topic, state_topic

SILENT_AFTER_S = 3.0
"""Three heartbeats: a sender that says nothing for so long is called silent."""

_NEWEST_HWM = 64  # the receive thread empties it at once; room for the time it waits for the interpreter
_MAX_MESSAGE_BYTES = 2**28
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1000


class MaskSubscriber:
    """Scenes from a publisher, as an iterator or one by one with `read`.

        with MaskSubscriber() as masks:
            for scene in masks:
                print(scene.frame, [item.id for item in scene.objects], scene.labels.shape)

    A receive thread keeps the newest scene per source and kind, so a consumer that takes 50 ms per scene
    works on scenes about 50 ms old however fast they come. The publisher may start later or restart.

    Args:
        endpoint: of the publisher.
        kind: "final", "provisional" (lag 0) or "both".
        source: only this one. Naming it also spares the publisher the kind that is not wanted.
        every: deliver all scenes in order instead of the newest; what is lost is counted in `missed`.
        queue_size: scenes that may wait with `every`; beyond, the oldest is lost.
        until_eos: the iterator ends when all known sources have ended.
        keys: folder of a client's keys (`python -m streaming.keys`), for an engine that runs with `--keys`.
        context: share the publisher's for inproc endpoints.

    Attributes:
        missed: scenes that never arrived (gaps in seq) or found the queue full.
        skipped: scenes that a newer one replaced before they were read; 0 with `every`.
        malformed: messages that did not follow the protocol; they are left out.

    Raises:
        UsageError: the endpoint is malformed, `kind` unknown or `keys` without usable keys.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        kind: Literal["final", "provisional", "both"] = "final",
        source: str | None = None,
        every: bool = False,
        queue_size: int = 256,
        until_eos: bool = True,
        keys: Path | str | None = None,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
    ) -> None:
        if kind not in ("final", "provisional", "both"):
            raise UsageError(f"kind {kind!r}: one of final, provisional, both is needed")
        if source is not None:
            check_source_name(source)
        own_keys = None if keys is None else load_client(keys, "data")
        self.missed = 0
        self.skipped = 0
        self.malformed = 0
        self._kind = kind
        # Without a named source the subscription covers both kinds: the one not wanted is left out by topic.
        self._suffix = b"/" if kind == "both" else f"/{kind}/".encode()
        self._source = source
        self._every = every
        self._until_eos = until_eos
        self._inbox: Inbox = EveryInbox(queue_size) if every else NewestInbox()
        self._changed = threading.Condition()
        self._last: dict[bytes, tuple[str, int]] = {}
        self._states: dict[str, State] = {}
        self._ended: dict[str, bool] = {}
        self._heard_s: dict[str, float] = {}
        self._closed = False
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._socket = self._connect(endpoint, max(queue_size, _NEWEST_HWM), own_keys)
        self._waker = Waker()
        self._thread = threading.Thread(target=self._receive, name="subscriber", daemon=True)
        self._thread.start()

    def _connect(self, endpoint: str, hwm: int, keys: ClientKeys | None) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.SUB)
        for option, value in (
            (zmq.RCVHWM, hwm),
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
            (zmq.IPV6, int("[" in endpoint)),
        ):
            socket.setsockopt(option, value)
        set_keepalive(socket)
        if keys is not None:
            present_keys(socket, keys)
        for prefix in self._prefixes():
            socket.setsockopt(zmq.SUBSCRIBE, prefix)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            if self._own_context:
                self._context.term()
            raise UsageError(f"cannot subscribe to {endpoint!r}: {error.strerror}") from None
        return socket

    def _prefixes(self) -> list[bytes]:
        if self._source is None:
            return [b"masks/", b"state/"]
        kinds: tuple[Literal["provisional", "final"], ...]
        kinds = ("provisional", "final") if self._kind == "both" else (self._kind,)
        return [*(mask_topic(self._source, kind) for kind in kinds), state_topic(self._source)]

    def read(self, timeout_s: float | None = None) -> Message | None:
        """The next scene: the newest not yet delivered, or with `every` the next in order.

        Args:
            timeout_s: how long to wait; None waits until there is one.

        Returns:
            None when none came in time or the subscriber was closed.
        """
        return self._next(timeout_s, until_eos=False)

    def __iter__(self) -> Iterator[Message]:
        while (message := self._next(None, self._until_eos)) is not None:
            yield message

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources heard of so far."""
        with self._changed:
            return tuple(self._heard_s)

    @property
    def ended(self) -> bool:
        """True when every source heard of has ended and all its scenes were delivered."""
        with self._changed:
            return self._all_ended() and not self._inbox

    def state(self, source: str) -> State | Literal["unknown", "silent"]:
        """What the sender last said about `source`.

        "unknown" before its first heartbeat, "silent" when nothing has come for 3 s ("ended" stays).
        """
        with self._changed:
            state = self._states.get(source)
            heard_s = self._heard_s.get(source)
        if state == "ended":
            return state
        if heard_s is not None and time.monotonic() - heard_s > SILENT_AFTER_S:
            return "silent"
        return state or "unknown"

    def close(self) -> None:
        """Stop receiving; a `read` or an iteration in another thread returns."""
        self._stop_readers()
        self._waker.wake()
        self._thread.join()
        self._waker.close()
        if self._own_context:
            self._context.term()

    def __enter__(self) -> "MaskSubscriber":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, timeout_s: float | None, until_eos: bool) -> Message | None:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._changed:
                while not self._inbox:
                    if self._closed or (until_eos and self._all_ended()):
                        return None
                    left_s = None if deadline_s is None else deadline_s - time.monotonic()
                    if left_s is not None and left_s <= 0:
                        return None
                    self._changed.wait(left_s)
                message = self._inbox.take()
            try:
                # Decoded here and not on receipt: what a newer scene replaces costs nothing.
                _ = message.labels
                return message
            except WireError:
                with self._changed:
                    self.malformed += 1

    def _stop_readers(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _all_ended(self) -> bool:
        return bool(self._ended) and all(self._ended.values())

    def _receive(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        self._waker.register(poller)
        try:
            while not self._closed:
                if self._socket in dict(poller.poll()):
                    self._take_in(self._socket.recv_multipart())
        finally:
            self._socket.close()
            self._stop_readers()

    def _take_in(self, parts: list[bytes]) -> None:
        if parts[0].startswith(b"masks/") and not parts[0].endswith(self._suffix):
            return
        try:
            message = decode(parts, lazy=True)
        except WireError:
            with self._changed:
                self.malformed += 1
            return
        with self._changed:
            self._heard_s[message.source] = time.monotonic()
            if message.state is not None:
                self._states[message.source] = message.state
                self._ended[message.source] = message.kind == "eos"
            else:
                # A scene of a source that has not said anything yet keeps the iterator going.
                self._ended.setdefault(message.source, False)
                self._take_in_scene(message)
            self._changed.notify_all()

    def _take_in_scene(self, message: Message) -> None:
        session, last = self._last.get(message.topic, ("", -1))
        if session == message.session:
            if message.seq <= last:
                return  # the repetition sent for a newcomer
            self.missed += message.seq - last - 1
        self._last[message.topic] = (message.session, message.seq)
        displaced = self._inbox.put(message)
        if self._every:
            self.missed += displaced
        else:
            self.skipped += displaced
