"""A sink on a thread of its own, so that disks and encoders never hold up the engine."""

import queue
import threading
from typing import Protocol

from engine.frame import Frame
from engine.scene import Scene


class Sink(Protocol):
    """Takes frames and the scenes they settled; scenes may belong to earlier frames."""

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """One processed frame and what it settled; None where scenes become final without one (gap, swap, end)."""

    def close(self) -> None:
        """Finish files."""


class BackgroundSink:
    """Runs another sink behind a bounded queue.

    Args:
        sink: does the work.
        wait: True waits for room (nothing is lost); False drops and counts when the queue is full.
        size: frames the queue holds.

    Attributes:
        dropped: frames not handed over because the sink was too slow.
    """

    def __init__(self, sink: Sink, *, wait: bool, size: int = 32) -> None:
        self._sink = sink
        self._wait = wait
        self._queue: queue.Queue[tuple[Frame | None, list[Scene]] | None] = queue.Queue(size)
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=type(sink).__name__, daemon=True)
        self._thread.start()

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Hand over one frame.

        Raises:
            Whatever the sink raised since the last call.
        """
        self._raise()
        if self._wait or frame is None:
            self._queue.put((frame, scenes))
            return
        try:
            self._queue.put_nowait((frame, scenes))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Work off the queue, finish the sink, and report what went wrong in it; closing twice is allowed."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        failed = False
        while (item := self._queue.get()) is not None:
            if failed:
                continue  # keep emptying the queue, so that nobody waits for a sink that gave up
            try:
                self._sink.step(*item)
            except Exception as error:
                self._error, failed = error, True
        try:
            self._sink.close()
        except Exception as error:
            self._error = self._error or error
