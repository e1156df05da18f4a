"""A sink on a thread of its own, so that disks and encoders never hold up the engine."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from engine.errors import StoreError
from engine.frame import Frame
from engine.scene import Scene

_log = logging.getLogger("unseen.output")

_RESERVE = 32
"""Room kept for finals that come without a frame (gap, swap, end): of those there is no second chance."""

PATIENCE_S = 20.0
"""A disk that has taken nothing for so long hangs."""


class Sink(Protocol):
    """Takes frames and the scenes they settled; scenes may belong to earlier frames."""

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """One processed frame and what it settled; None where scenes become final without one (gap, swap, end)."""

    def close(self) -> None:
        """Finish files."""


class BackgroundSink:
    """Runs another sink behind a bounded queue; the calls to it come from one thread.

    Args:
        sink: does the work.
        wait: True for files: a full queue is waited for (nothing is lost), and what goes wrong ends the run.
            False for what is live: a full queue drops and counts, what goes wrong is told at once and ends this
            sink only; `close` raises it.
        size: frames the queue holds.
        name: what the user knows it by; the sink's class otherwise.
        patience_s: how long it may take nothing, before what follows is dropped with `wait` too and `close` gives up.

    Attributes:
        dropped: frames not handed over because the sink was too slow, had failed, or hung.
    """

    def __init__(
        self, sink: Sink, *, wait: bool, size: int = 32, name: str | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self._sink = sink
        self._wait = wait
        self._size = size
        self._name = name or type(sink).__name__
        self._patience_s = patience_s
        self._change = threading.Condition()
        self._items: deque[tuple[Frame | None, list[Scene]] | None] = deque()
        self._taken = 0
        self._hangs = False
        self._failed = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=type(sink).__name__, daemon=True)
        self._thread.start()

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Hand over one frame; without `wait` it returns at once whatever the disk does.

        Raises:
            Whatever the sink raised since the last call, with `wait`.
        """
        if self._wait:
            self._raise()
        room = self._size if frame is not None else self._size + _RESERVE
        with self._change:
            if self._wait and not self._hangs and not self._change.wait_for(self._has(room), self._patience_s):
                self._hangs = True
                _log.warning("%s: took nothing for %.0f s; dropped until it does", self._name, self._patience_s)
            if self._failed or len(self._items) >= room:
                self.dropped += frame is not None
                return
            self._items.append((frame, scenes))
            self._change.notify_all()

    def close(self) -> None:
        """Work off the queue, finish the sink, and report what went wrong in it; closing twice is allowed.

        Raises:
            Whatever the sink raised.
            StoreError: it took nothing for `patience_s`; what waits for it is lost.
        """
        with self._change:
            self._items.append(None)
            self._change.notify_all()
        before = -1
        while self._thread.is_alive() and before != self._taken:
            before = self._taken
            self._thread.join(self._patience_s)
        if self._thread.is_alive():
            with self._change:
                lost = sum(item is not None for item in self._items)
                self._items.clear()
                self._items.append(None)
            if self._error is None and not self._failed:
                self._failed = True
                self._error = StoreError(
                    f"{self._name}: took nothing for {self._patience_s:.0f} s, the last {lost + 1} frames are not "
                    "in it; is its disk there?"
                )
        self._raise()

    def _has(self, room: int) -> Callable[[], bool]:
        return lambda: len(self._items) < room

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _fail(self, error: Exception) -> None:
        if self._failed:
            return
        self._error, self._failed = error, True
        if not self._wait:
            _log.warning("%s; what follows is not written, the engine goes on", error)

    def _run(self) -> None:
        while (item := self._take()) is not None:
            if self._failed:
                with self._change:
                    self.dropped += item[0] is not None
                continue  # keep emptying the queue, so that nobody waits for a sink that gave up
            try:
                self._sink.step(*item)
            except Exception as error:
                self._fail(error)
        try:
            self._sink.close()
        except Exception as error:
            self._fail(error)

    def _take(self) -> tuple[Frame | None, list[Scene]] | None:
        with self._change:
            self._change.wait_for(lambda: bool(self._items))
            self._taken += 1
            self._hangs = False
            item = self._items.popleft()
            self._change.notify_all()
            return item
