"""Ask and steer a running engine from Python."""

import base64
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from engine.errors import UsageError
from streaming.authenticator import present_keys
from streaming.control.operations import mask_argument
from streaming.control.protocol import ControlError, Request, encode_request, parse_reply
from streaming.endpoint import set_keepalive
from streaming.keys import load_client

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5556"
MODEL_TIMEOUT_S = 120.0
"""Loading a model and warming it up, aside of the running one, may take that long on a busy machine."""

_LARGEST_REPLY_BYTES = 2**26


class ControlClient:
    """One operation at a time on a running engine; use one client per thread.

        with ControlClient() as engine:
            print(engine.status()["fps"])
            identity = engine.track("cam", box=(100, 80, 220, 200))

    Every method raises `ControlError`: its `code` is one of the protocol's, or "no_answer" when nothing came back.

    Args:
        endpoint: the engine's `--control`.
        keys: folder of a client's keys (`python -m streaming.keys`), for an engine that runs with `--keys`.
        timeout_s: how long to wait for an answer.

    Raises:
        UsageError: the endpoint is malformed or `keys` holds no usable keys.
    """

    def __init__(
        self, endpoint: str = DEFAULT_ENDPOINT, keys: Path | str | None = None, timeout_s: float = 5.0
    ) -> None:
        self._endpoint = endpoint
        self._keys = None if keys is None else load_client(keys, "control")
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket = self._connect()
        except UsageError:
            self._context.term()
            raise

    def call(self, op: str, args: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> Any:
        """Any operation by its name; returns its result.

        Args:
            timeout_s: instead of the client's own.
        """
        request = Request(next(self._ids), op, dict(args or {}))
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + patience_s
        data = encode_request(request)
        try:
            self._wait(zmq.POLLOUT, deadline_s)
            self._socket.send(data, zmq.NOBLOCK)
            while True:
                self._wait(zmq.POLLIN, deadline_s)
                reply = parse_reply(self._socket.recv(zmq.NOBLOCK))
                if reply.error is not None and reply.id in (request.id, None):
                    raise reply.error
                if reply.id == request.id:
                    return reply.result
        except zmq.Again:
            # A fresh connection: an answer that comes later belongs to nobody.
            self._socket.close()
            self._socket = self._connect()
            hint = "is the engine running there with --control" + (
                ", and is this key authorised?" if self._keys else "?"
            )
            message = f"no answer from {self._endpoint} within {patience_s:g} s: {hint}"
            raise ControlError("no_answer", message, request.id) from None

    def status(self) -> dict[str, Any]:
        """What the engine is doing."""
        return self._object("status")

    def sources(self) -> list[dict[str, Any]]:
        """Every source: name, state, frames per second, drops."""
        return list(self.call("sources"))

    def pause(self, source: str | None = None) -> None:
        """Stop processing a source, or all; its frames are dropped meanwhile."""
        self.call("pause", _given(source=source))

    def resume(self, source: str | None = None) -> None:
        """Go on after `pause`."""
        self.call("resume", _given(source=source))

    def add_source(self, source: str) -> str:
        """Open `[NAME=]URI` beside the running sources; returns its name."""
        return str(self._object("add_source", source=source)["source"])

    def remove_source(self, source: str) -> None:
        """End a source; its last finals are published."""
        self.call("remove_source", {"source": source})

    def set(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Change knobs such as {"select.lambda_flow": 2}; returns all that may change and their values."""
        return dict(self._object("set", settings=dict(settings))["settings"])

    def track(
        self,
        source: str | None = None,
        *,
        mask: NDArray[np.bool_] | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> int:
        """Follow *this one* from the newest frame on; returns its id.

        Args:
            mask: bool [H, W] at frame size; or
            box: (x0, y0, x1, y1), half-open frame pixels; or
            point: (x, y), frame pixels.
        """
        args = _given(
            source=source,
            mask=None if mask is None else mask_argument(mask),
            box=None if box is None else [float(side) for side in box],
            point=None if point is None else [float(side) for side in point],
        )
        return int(self.call("track", args)["object"])

    def forget(self, identity: int, source: str | None = None) -> None:
        """Let a tracked object go."""
        self.call("forget", _given(source=source, object=int(identity)))

    def reload_model(self, timeout_s: float = MODEL_TIMEOUT_S) -> int:
        """Run the registry's current model; returns the new generation once it runs."""
        return int(self.call("reload_model", timeout_s=timeout_s)["generation"])

    def rollback_model(self, timeout_s: float = MODEL_TIMEOUT_S) -> int:
        """Run the model before this one; returns the new generation once it runs."""
        return int(self.call("rollback_model", timeout_s=timeout_s)["generation"])

    def snapshot(self, source: str | None = None, what: str = "overlay", width_px: int = 640) -> dict[str, Any]:
        """The newest picture of a source and what is seen in it.

        Args:
            what: "overlay" or "image" (JPEG), or "labels" (16-bit PNG).

        Returns:
            The reply's fields; `data` is the encoded picture as bytes.
        """
        content = dict(self.call("snapshot", _given(source=source, what=what, width_px=width_px)))
        content["data"] = base64.b64decode(content["data"])
        return content

    def shutdown(self) -> None:
        """End the engine in good order."""
        self.call("shutdown")

    def close(self) -> None:
        """Release the connection; closing twice is allowed."""
        if not self._context.closed:
            self._socket.close()
            self._context.term()

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _object(self, op: str, **args: Any) -> dict[str, Any]:
        return dict(self.call(op, args))

    def _wait(self, event: int, deadline_s: float) -> None:
        left_ms = max(0, round((deadline_s - time.monotonic()) * 1e3))
        if not self._socket.poll(left_ms, event):
            raise zmq.Again

    def _connect(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # a request never waits for an engine that starts later
            (zmq.MAXMSGSIZE, _LARGEST_REPLY_BYTES),
            (zmq.IPV6, int("[" in self._endpoint)),
        ):
            socket.setsockopt(option, value)
        set_keepalive(socket)
        if self._keys is not None:
            present_keys(socket, self._keys)
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise UsageError(f"cannot connect to {self._endpoint!r}: {error.strerror}") from None
        return socket


def _given(**args: Any) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}
