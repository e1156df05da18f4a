"""Which frame is next: the lanes take turns, each with the frame it keeps; calls go before frames."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.errors import EngineError
from engine.frame import Frame
from streaming.feed import Break
from streaming.lane import Lane

T = TypeVar("T")


@dataclass(slots=True)
class Call(Generic[T]):
    """Something to be done between two frames, and its answer."""

    action: Callable[[], T]
    answer: "Future[T]" = field(default_factory=Future)

    def run(self) -> None:
        """Do it, unless whoever asked has given up."""
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.answer.set_result(self.action())
        except Exception as error:
            self.answer.set_exception(error)

    def refuse(self, reason: str) -> None:
        """Answer that it is not going to be done."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(EngineError(reason))


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame of a lane and what lies before it."""

    lane: Lane
    frame: Frame
    before: Break


@dataclass(frozen=True, slots=True)
class Ended:
    """A lane from which nothing more comes."""

    lane: Lane


class Schedule:
    """Hands out, one after the other, the frames that lanes have ready.

    Args:
        lanes: to begin with.
    """

    def __init__(self, lanes: list[Lane]) -> None:
        self._wakeup = threading.Event()
        self._change = threading.Lock()
        self._lanes: tuple[Lane, ...] = ()
        self._turn = 0
        self._calls: deque[Call[Any]] = deque()
        for lane in lanes:
            self.add(lane)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those served now, in the order in which they were added."""
        return self._lanes

    def add(self, lane: Lane) -> None:
        """Serve another lane."""
        lane.feed.on_change = self._wakeup.set
        with self._change:
            self._lanes = (*self._lanes, lane)
        self._wakeup.set()

    def remove(self, lane: Lane) -> None:
        """Serve it no more."""
        with self._change:
            self._lanes = tuple(other for other in self._lanes if other is not lane)
        self._wakeup.set()

    def ask(self, call: Call[Any]) -> None:
        """Have `call` come next."""
        self._calls.append(call)
        self._wakeup.set()

    def next_call(self) -> Call[Any] | None:
        """A call that waits, the oldest first."""
        try:
            return self._calls.popleft()
        except IndexError:
            return None

    def next_frame(self, timeout_s: float) -> Taken | Ended | None:
        """What a lane has ready, in fair turns; None after `timeout_s`, or as soon as a call waits."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            # Cleared before looking: whatever comes while we look wakes us again.
            self._wakeup.clear()
            if self._calls:
                return None
            if (found := self._look()) is not None:
                return found
            if not self._wakeup.wait(max(0.0, deadline_s - time.monotonic())):
                return None

    @property
    def finished(self) -> bool:
        """Whether every lane has come to its end; never without lanes, as one may be added."""
        return bool(self._lanes) and all(lane.ending for lane in self._lanes)

    def _look(self) -> Taken | Ended | None:
        lanes = self._lanes
        for step in range(len(lanes)):
            position = (self._turn + step) % len(lanes)
            lane = lanes[position]
            taken = lane.feed.take()
            if taken is not None:
                self._turn = position + 1
                return Taken(lane, *taken)
            if not lane.ending and lane.feed.over:
                lane.ending = True
                return Ended(lane)
        return None
