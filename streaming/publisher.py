"""Publish scenes over ZeroMQ from a thread of its own, so that no subscriber can slow the engine down."""

import contextlib
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from engine.errors import EngineError
from engine.scene import Scene
from streaming.authenticator import require_keys
from streaming.endpoint import bind, set_keepalive
from streaming.keys import ServerKeys
from streaming.outbox import Outbox, Outgoing
from streaming.waker import Waker
from streaming.wire import (
    ModelInfo,
    State,
    WireError,
    check_source_name,
    check_state,
    encode_eos,
    encode_heartbeat,
    encode_scene,
    mask_topic,
    state_topic,
)

_log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""How often each source's state is told; subscribers call a sender silent after three of them."""


class Publisher:
    """Scenes and source states on an XPUB socket.

    `publish` hands over and returns. A topic nobody subscribed to is not encoded. A newcomer gets the last
    message of each of its topics at once; subscribers already there see it twice and drop it by (session,
    seq), because a PUB socket cannot address one peer. A subscriber that does not read loses messages (a gap
    in seq) and holds up the others by `patience_ms` at most, each time it falls behind anew.

    Args:
        endpoint: where to bind; port 0 or `*` takes a free port, see `endpoint`.
        model: sent with every scene until the attribute is replaced.
        encoding: of label maps, one of `streaming.label_codec.ENCODINGS`.
        queue_size: messages waiting per topic, then the oldest makes room. 8 absorbs a burst of finals;
            64 suits files read at full speed.
        send_hwm: messages libzmq holds per subscriber. 2 keeps live readers fresh; 64 suits files.
        patience_ms: how long a full subscriber is waited for before it loses a message. Above the few ms by
            which a busy machine delays libzmq's own thread, or bursts lose messages for no reason.
        insecure: also bind what other machines can reach.
        keys: encrypt, and let only authorised clients read (`streaming.keys.load_server(DIR, "data")`).
        context: share one to use inproc endpoints.

    Attributes:
        endpoint: the endpoint in effect.
        session: uuid hex, new per publisher.

    Raises:
        UsageError: the endpoint cannot be bound, or a shared context has keys already.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        model: ModelInfo | None = None,
        encoding: str = "rle+zlib",
        queue_size: int = 8,
        send_hwm: int = 2,
        patience_ms: int = 10,
        insecure: bool = False,
        keys: ServerKeys | None = None,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
    ) -> None:
        self.model = model or ModelInfo()
        self.session = uuid.uuid4().hex
        self._encoding = encoding
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        for option, value in (
            (zmq.SNDHWM, send_hwm),
            (zmq.LINGER, 0),
            (zmq.XPUB_VERBOSE, 1),  # hear of every newcomer, not only of the first per prefix
            (zmq.XPUB_NODROP, 1),  # a full subscriber is an error we see and count
            (zmq.SNDTIMEO, patience_ms),
        ):
            self._socket.setsockopt(option, value)
        set_keepalive(self._socket)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._peers: set[int] = set()
        self._authenticator: ThreadAuthenticator | None = None
        try:
            if keys is not None:
                self._authenticator = require_keys(self._context, self._socket, keys)
            self.endpoint = bind(self._socket, endpoint, insecure=insecure, authenticated=keys is not None)
        except EngineError:
            self._release()
            raise
        self._outbox = Outbox(queue_size)
        self._dropped: Counter[str] = Counter()
        self._last: dict[bytes, Outgoing] = {}
        self._subscriptions: set[bytes] = set()
        self._subscribed = threading.Condition()
        self._states_lock = threading.Lock()
        self._states: dict[str, tuple[State, bool]] = {}
        self._heartbeat_due_s: dict[str, float] = {}
        self._close_by_s: float | None = None
        self._failure: BaseException | None = None
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> dict[str, int]:
        """Messages not sent, by cause.

        `queue`: newer ones took their place in the hand-over. `slow_subscriber`: occasions on which a full
        subscriber lost at least one. `unencodable`: content that may not go on the wire, such as NaN.
        """
        counts = {**self._dropped, "queue": self._outbox.dropped}
        return {cause: count for cause, count in counts.items() if count}

    @property
    def subscribers(self) -> int:
        """Peers connected over tcp or ipc."""
        return len(self._peers)

    @property
    def waiting(self) -> int:
        """Messages handed over and not yet sent."""
        return len(self._outbox)

    def publish(
        self,
        scene: Scene,
        *,
        timing_ms: Mapping[str, float] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> None:
        """Hand over a scene and return; its arrays must not be changed afterwards.

        Args:
            timing_ms, dropped: stage times and frame drops by cause, told to subscribers.

        Raises:
            WireError: the source's name cannot be part of a topic.
            EngineError: the publisher is closed or has failed.
        """
        _, ended = self._states.get(scene.source, ("ended", True))
        if ended:
            self.set_state(scene.source, "live")
        model, timing_ms, dropped = self.model, dict(timing_ms or {}), dict(dropped or {})

        def encode(seq: int, t_publish_ns: int) -> list[bytes]:
            return encode_scene(
                scene,
                session=self.session,
                seq=seq,
                model=model,
                timing_ms=timing_ms,
                dropped=dropped,
                encoding=self._encoding,
                t_publish_ns=t_publish_ns,
            )

        self._check_running()
        self._outbox.put(mask_topic(scene.source, scene.kind), encode)
        self._waker.wake()

    def set_state(self, source: str, state: State) -> None:
        """Tell subscribers how a source is doing: now if that is news, and every second.

        Name every source before the first one can end, or readers take the end of one for the end of all.

        Raises:
            WireError: unknown state or bad source name.
            EngineError: the publisher is closed or has failed.
        """
        check_source_name(source)
        check_state(state)
        self._set_state(source, state, ends=False)

    def eos(self, source: str) -> None:
        """Tell subscribers that no scene of `source` follows: now, and every second for late ones."""
        check_source_name(source)
        self._set_state(source, "ended", ends=True)

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Wait until somebody subscribes; False when nobody does in time."""
        with self._subscribed:
            return self._subscribed.wait_for(lambda: bool(self._subscriptions), timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Send what waits, giving slow subscribers `timeout_s` at most, and release the endpoint."""
        if self._close_by_s is None:
            self._close_by_s = time.monotonic() + timeout_s
        self._waker.wake()
        self._thread.join()
        if not self._context.closed:
            self._release()

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._close_socket()
        if self._authenticator is not None:
            self._authenticator.stop()
        if self._own_context:
            self._context.term()  # waits for the linger time the publisher thread has set

    def _check_running(self) -> None:
        if self._failure is not None:
            raise EngineError(f"publisher at {self.endpoint} has failed: {self._failure!r}")
        if self._close_by_s is not None:
            raise EngineError(f"publisher at {self.endpoint} is closed")

    def _set_state(self, source: str, state: State, *, ends: bool) -> None:
        self._check_running()
        with self._states_lock:
            before = self._states.get(source)
            # "ended" after the end-of-stream is no news and must not take it back.
            if before != (state, ends) and not (before == ("ended", True) and state == "ended"):
                self._states[source] = (state, ends)
                self._put_state(source)
        self._waker.wake()

    def _put_state(self, source: str) -> None:
        state, ends = self._states[source]
        self._heartbeat_due_s[source] = time.monotonic() + HEARTBEAT_S

        def encode(seq: int, t_publish_ns: int) -> list[bytes]:
            if ends:
                return encode_eos(source, session=self.session, seq=seq, t_publish_ns=t_publish_ns)
            return encode_heartbeat(source, state, session=self.session, seq=seq, t_publish_ns=t_publish_ns)

        self._outbox.put(state_topic(source), encode, ends=ends)

    # Everything below runs in the publisher thread, the only user of the socket.

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        self._waker.register(poller)
        try:
            while self._close_by_s is None or self._outbox:
                poller.poll(0 if self._outbox else self._until_heartbeat_ms())
                self._waker.clear()
                self._beat()
                self._count_peers()
                self._admit_newcomers()
                if (item := self._outbox.take()) is not None:
                    self._last[item.topic] = item
                    self._send(item)
            self._socket.setsockopt(zmq.LINGER, self._closing_ms())
        except Exception as error:
            self._failure = error
            _log.exception("publisher at %s has failed", self.endpoint)
        finally:
            self._close_socket()
            self._waker.close()

    def _close_socket(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close()

    def _count_peers(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                # Both events carry the number of the connection's file descriptor.
                change = self._peers.add if event["event"] == zmq.EVENT_ACCEPTED else self._peers.discard
                change(event["value"])

    def _until_heartbeat_ms(self) -> int | None:
        if self._close_by_s is not None:
            return 0
        with self._states_lock:
            due_s = min(self._heartbeat_due_s.values(), default=None)
        return None if due_s is None else int(max(0.0, (due_s - time.monotonic()) * 1e3)) + 1

    def _closing_ms(self) -> int:
        """Time left for slow subscribers while closing."""
        return int(max(0.0, ((self._close_by_s or 0.0) - time.monotonic()) * 1e3))

    def _beat(self) -> None:
        now_s = time.monotonic()
        with self._states_lock:
            for source in [source for source, due_s in self._heartbeat_due_s.items() if due_s <= now_s]:
                self._put_state(source)

    def _admit_newcomers(self) -> None:
        """Note who subscribed to what and repeat the last message of every topic that newcomers asked for."""
        new: set[bytes] = set()
        with self._subscribed, contextlib.suppress(zmq.Again):
            while True:
                change = self._socket.recv(zmq.NOBLOCK)
                if change[:1] == b"\x01":
                    new.add(change[1:])
                    self._subscriptions.add(change[1:])
                    self._subscribed.notify_all()
                elif change[:1] == b"\x00":
                    self._subscriptions.discard(change[1:])
        wanted = [item for topic, item in self._last.items() if topic.startswith(tuple(new))]
        # Scenes before states and ends last: a reader must not take the end of one source for the end of
        # all, nor stop before it has seen the last scene.
        for item in sorted(wanted, key=lambda item: (item.topic.startswith(b"state/"), item.ends)):
            self._send(item)

    def _send(self, item: Outgoing) -> None:
        if not item.topic.startswith(tuple(self._subscriptions)):
            return
        try:
            parts = item.parts()
        except WireError as error:
            self._last.pop(item.topic, None)
            if not self._dropped["unencodable"]:
                _log.warning("not published: %s", error)
            self._dropped["unencodable"] += 1
            return
        if self._close_by_s is not None:
            self._socket.setsockopt(zmq.SNDTIMEO, self._closing_ms())
        try:
            self._socket.send_multipart(parts)
        except zmq.Again:
            self._dropped["slow_subscriber"] += 1
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart(parts)
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)
