"""The control channel's server: a ROUTER socket on a thread of its own."""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import zmq
from zmq.auth.thread import ThreadAuthenticator

from engine.errors import EngineError
from streaming.authenticator import require_keys
from streaming.control.operations import Operation, Operations
from streaming.control.protocol import (
    MAX_REQUEST_BYTES,
    ControlError,
    Request,
    RequestId,
    encode_error,
    encode_result,
    error_code,
    parse_request,
)
from streaming.endpoint import bind, set_keepalive
from streaming.header import Header
from streaming.keys import ServerKeys
from streaming.waker import Waker

_log = logging.getLogger("unseen.control")

MAX_PENDING = 32
"""Requests waiting for their turn; the next one is told `busy` instead of growing a queue."""

_CUT_OFF_BYTES = 4 * MAX_REQUEST_BYTES
"""What is too large is answered; what is much too large ends the connection before it takes our memory."""

_REPLIES_PER_CLIENT = 64
_CLOSING_MS = 500

_Job = Callable[[], None]


class ControlServer:
    """Answers requests until closed; no client is ever waited for.

    Validation and the cheap questions happen in the socket's thread, everything else on two worker threads: one
    for what steers the session, one for what loads models. The engine meets a request between two frames only.

    Args:
        endpoint: where to bind; port 0 or `*` takes a free port, see `endpoint`.
        operations: what can be asked.
        insecure: also bind what other machines can reach.
        keys: encrypt, and let only authorised clients in.

    Attributes:
        endpoint: the endpoint in effect.
        counts: requests by outcome: "ok", the error codes, and "unanswered" (the client had gone).

    Raises:
        UsageError: the endpoint cannot be bound.
    """

    def __init__(
        self,
        endpoint: str,
        operations: Operations,
        *,
        insecure: bool = False,
        keys: ServerKeys | None = None,
    ) -> None:
        self._operations = operations
        self.counts: Counter[str] = Counter()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, _CUT_OFF_BYTES),
            (zmq.SNDHWM, _REPLIES_PER_CLIENT),
            (zmq.RCVHWM, MAX_PENDING),
            (zmq.SNDTIMEO, 0),
            (zmq.ROUTER_MANDATORY, 1),  # a client that is gone or does not read is an error we count
        ):
            self._socket.setsockopt(option, value)
        set_keepalive(self._socket)
        self._authenticator: ThreadAuthenticator | None = None
        try:
            if keys is not None:
                self._authenticator = require_keys(self._context, self._socket, keys)
            self.endpoint = bind(self._socket, endpoint, insecure=insecure, authenticated=keys is not None)
        except EngineError:
            self._release()
            raise
        self._replies: queue.SimpleQueue[tuple[list[bytes], bytes, str]] = queue.SimpleQueue()
        self._pending = threading.Semaphore(MAX_PENDING)
        self._stopping = False
        self._closing = threading.Event()
        self._waker = Waker()
        self._workers = {name: _Worker(f"control-{name}") for name in ("steer", "model")}
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """Send the replies that are ready and release the endpoint; closing twice is allowed.

        Args:
            timeout_s: how long an operation in progress is waited for.
        """
        self._stopping = True
        deadline_s = time.monotonic() + timeout_s
        for worker in self._workers.values():
            worker.stop(max(0.0, deadline_s - time.monotonic()))
        self._closing.set()
        self._waker.wake()
        self._thread.join()
        if not self._context.closed:
            self._release()

    def __enter__(self) -> "ControlServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        if not self._socket.closed:
            self._socket.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    # Everything below but `_work` runs in the control thread, the only user of the socket.

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        self._waker.register(poller)
        try:
            while not self._closing.is_set():
                ready = dict(poller.poll())
                self._waker.clear()
                self._send_replies()
                if self._socket in ready:
                    self._receive()
            self._send_replies()
            self._socket.setsockopt(zmq.LINGER, _CLOSING_MS)
        except Exception:
            _log.exception("control channel at %s has failed", self.endpoint)
        finally:
            self._socket.close()
            self._waker.close()

    def _receive(self) -> None:
        identity, *parts = self._socket.recv_multipart()
        # A REQ socket puts an empty part before its message and wants it back.
        envelope = [identity, b""] if len(parts) == 2 and not parts[0] else [identity]
        try:
            if len(parts) != len(envelope):
                raise ControlError("malformed", f"message of {len(parts)} parts: a request is one part")
            request = parse_request(parts[-1])
            operation, args = self._operations.find(request)
        except ControlError as error:
            self._refuse(envelope, error.request_id, error.code, str(error))
            return
        if self._stopping:
            self._refuse(envelope, request.id, "unavailable", "the engine is stopping")
        elif operation.queue == "now":
            self._answer(envelope, request, operation, args)
        elif self._pending.acquire(blocking=False):
            self._workers[operation.queue].put(lambda: self._work(envelope, request, operation, args))
        else:
            self._refuse(envelope, request.id, "busy", f"{MAX_PENDING} requests are waiting: try again later")

    def _work(self, envelope: list[bytes], request: Request, operation: Operation, args: Header) -> None:
        try:
            self._answer(envelope, request, operation, args)
        finally:
            self._pending.release()
            self._waker.wake()

    def _answer(self, envelope: list[bytes], request: Request, operation: Operation, args: Header) -> None:
        try:
            reply = encode_result(request.id, operation.run(args))
        except Exception as error:
            code, message = error_code(error), str(error)
            if code == "internal":
                _log.error("op=%s failed", request.op, exc_info=error)
                message = f"{request.op} failed: {type(error).__name__} (the engine's log has the details)"
            self._refuse(envelope, request.id, code, message)
            return
        if operation.queue != "now":
            _log.info("op=%s ok", request.op)
        self._replies.put((envelope, reply, "ok"))
        self._waker.wake()

    def _refuse(self, envelope: list[bytes], request_id: RequestId, code: str, message: str) -> None:
        self._replies.put((envelope, encode_error(request_id, code, message), code))
        self._waker.wake()

    def _send_replies(self) -> None:
        while True:
            try:
                envelope, reply, outcome = self._replies.get_nowait()
            except queue.Empty:
                return
            self.counts[outcome] += 1
            try:
                self._socket.send_multipart([*envelope, reply])
            except zmq.ZMQError:
                self.counts["unanswered"] += 1


class _Worker:
    """Runs jobs one after the other on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: _Job) -> None:
        """Do `job` after those already waiting."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> None:
        """Finish what waits, as far as `timeout_s` allows."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
