"""What the engine thread works off: frames already perceived, calls and ends of sources, in order.

Whoever perceives owns the accelerator. With cores to spare that is a thread of its own, which sees the next frame
while this one is decided. Otherwise it is the engine thread itself: taking turns between two threads would only move
what one core has just computed to another.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError, ModelError
from engine.frame import Frame
from engine.percepts import Percepts
from streaming.lane import Lane
from streaming.schedule import Call, Ended, Schedule, Taken

_POLL_S = 0.25
"""How often whoever waits for the next frame looks whether it should stop."""

_AHEAD = 3
"""Frames between capture and publishing when seeing runs ahead: one decided, one waiting, one perceived."""

_LEAVE_S = 0.05


@dataclass(frozen=True, slots=True)
class Perceived:
    """A frame that is seen and not yet decided."""

    lane: Lane
    frame: Frame
    percepts: Percepts
    in_hand_s: float


Item = Perceived | Ended | Call[Any]


class Perception:
    """Takes frames in turns and sees them.

    Args:
        schedule: the lanes in turns, and the calls.
        ahead: see the next frame, in a thread of its own, while one is decided.
        max_frames: end after so many; None: with the last source.
        start_anew: called, as a call between two frames, before the first frame after a gap.
        other_model: the same when the model fails on a frame; True: there is another one now.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        ahead: bool,
        max_frames: int | None,
        start_anew: Callable[[Taken], None],
        other_model: Callable[[ModelError], bool],
    ) -> None:
        self._schedule = schedule
        self._max_frames = max_frames
        self._start_anew = start_anew
        self._other_model = other_model
        self._stop = threading.Event()
        self._turns = threading.Semaphore(_AHEAD if ahead else 1)
        self._thread = threading.Thread(target=self._run_ahead, name="perceive", daemon=True) if ahead else None
        self._waiting: queue.SimpleQueue[Item | BaseException | None] = queue.SimpleQueue()

    def items(self) -> Generator[Item, None, None]:
        """Everything in order, until every lane has ended, `max_frames` or `stop`.

        Whoever asks for the next item is done with the one before; a call is to be answered by then.

        Raises:
            EngineError: what seeing failed on.
        """
        if self._thread is None:
            yield from self._seen()
            return
        self._thread.start()
        while (item := self._waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def done(self) -> None:
        """A perceived frame is published: there is room for another one."""
        self._turns.release()

    def stop(self) -> None:
        """End after the frame in hand; safe from signal handlers and other threads."""
        self._stop.set()

    def leave(self) -> None:
        """Wait for the thread to end, if there is one; frames nobody decides any more are counted, calls refused."""
        self._stop.set()
        while self._thread is not None and (self._thread.is_alive() or not self._waiting.empty()):
            try:
                item = self._waiting.get(timeout=_LEAVE_S)
            except queue.Empty:
                continue
            if isinstance(item, Perceived):
                item.lane.feed.count_drop("stopped")
            elif isinstance(item, Call):
                item.refuse("the engine has ended")

    def _run_ahead(self) -> None:
        try:
            for item in self._seen():
                self._waiting.put(item)
                if isinstance(item, Call):
                    # Nothing is perceived until then; the engine thread answers every call, also while it ends.
                    wait([item.answer])
        except EngineError as error:
            self._waiting.put(error)
        finally:
            self._waiting.put(None)

    def _seen(self) -> Generator[Item, None, None]:
        frames = 0
        in_hand: Taken | None = None
        try:
            while not self._stop.is_set() and frames != self._max_frames:
                if (call := self._schedule.next_call()) is not None:
                    yield call
                    continue
                # A frame is taken once the engine has room for it: until then a newer one may replace it.
                if not self._turns.acquire(timeout=_POLL_S):
                    continue
                found = self._schedule.next_frame(_POLL_S)
                if not isinstance(found, Taken):
                    self._turns.release()
                    if found is not None:
                        yield found
                    elif self._schedule.finished:
                        break
                    continue
                in_hand, in_hand_s = found, time.perf_counter()
                if found.before != "none":
                    anew: Call[None] = Call(lambda taken=found: self._start_anew(taken))  # type: ignore[misc]
                    yield anew
                    anew.answer.result()
                percepts = yield from self._see(found)
                in_hand = None
                frames += 1
                yield Perceived(found.lane, found.frame, percepts, in_hand_s)
        except EngineError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise ModelError(f"perception failed: {type(error).__name__} {text}") from error
        finally:
            if in_hand is not None:
                in_hand.lane.feed.count_drop("failed")

    def _see(self, taken: Taken) -> Generator[Item, None, Percepts]:
        """Percepts of a frame; when the model fails on it, those of another model if there is one to go back to."""
        pipeline = taken.lane.pipeline
        try:
            return pipeline.perceive(taken.frame)
        except ModelError as error:
            failure = error
        other: Call[bool] = Call(lambda: self._other_model(failure))
        yield other
        if not other.answer.result():
            raise failure
        return pipeline.perceive(taken.frame)
