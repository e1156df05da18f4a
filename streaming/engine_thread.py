"""The engine at work: frames already perceived are decided, published and saved.

The scenes of a source are those of `Pipeline.step`, whether the next frame is seen meanwhile or afterwards. Whatever
changes the engine is a call between two frames.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import EngineError, ModelError
from engine.frame import Frame
from engine.scene import Scene
from streaming.clock import CLOCK
from streaming.lane import Lane
from streaming.perception import Item, Perceived, Perception
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.schedule import Call, Ended, Schedule, Taken
from streaming.sinks.background import BackgroundSink
from streaming.wire import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FrameDone:
    """A published frame, as observers get it.

    Attributes:
        lane: name of the source.
        frame, scenes: the frame and what it settled, finals of earlier frames first.
        timing_ms: what each stage took.
        total_ms: frame in hand -> published.
        age_ms: capture -> published.
        followed: ids somebody asked to track.
    """

    lane: str
    frame: Frame
    scenes: list[Scene]
    timing_ms: dict[str, float]
    total_ms: float
    age_ms: float
    followed: tuple[int, ...] = ()


class EngineThread:
    """Works off what a schedule hands out, in the thread that calls `run`.

    Args:
        schedule: the lanes in turns, and the calls.
        report: collects statistics.
        publisher, sinks, max_frames, on_frame, overlap: see `streaming.session.Session`.

    Attributes:
        publisher, report: as given.
        alive: whether frames are taken or waited for.
        other_model: called in the engine thread when the model fails on a frame; True: there is another one now.
    """

    def __init__(
        self,
        schedule: Schedule,
        report: Report,
        *,
        publisher: Publisher | None,
        sinks: Sequence[BackgroundSink],
        max_frames: int | None,
        on_frame: Callable[[Frame, list[Scene]], None] | None,
        overlap: bool | None,
    ) -> None:
        self.publisher = publisher
        self.report = report
        self.alive = False
        self.other_model: Callable[[ModelError], bool] = lambda error: False
        self._schedule = schedule
        self._sinks = list(sinks)
        self._on_frame = on_frame
        self._observers: list[Callable[[FrameDone], None]] = []
        self._perception = Perception(
            schedule,
            ahead=(os.cpu_count() or 1) > 2 if overlap is None else overlap,
            max_frames=max_frames,
            start_anew=self._start_anew,
            other_model=lambda error: self.other_model(error),
        )
        self._ident: int | None = None
        self._over = False
        self._problem: BaseException | None = None
        self._source_problem: BaseException | None = None
        """What ended one source; the others go on, and `run` raises it at the end."""

    def stop(self) -> None:
        """End after the frame in hand; safe from signal handlers and other threads."""
        self._perception.stop()

    def call(self, action: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Run `action` in the engine thread between two frames: none is being perceived or waits to be decided.

        Raises:
            EngineError: the engine has ended, or did not come to it in time (then it is not run any more).
            Whatever `action` raises.
        """
        if threading.get_ident() == self._ident:
            raise RuntimeError("a call from the engine thread would wait for itself")
        call = Call(action)
        self._schedule.ask(call)
        if self._over:
            call.refuse("the engine has ended")
        try:
            return call.answer.result(timeout_s)
        except CancelledError:
            raise EngineError("the engine has ended") from None
        except FutureTimeoutError:
            if not call.answer.cancel() and call.answer.done():
                return call.answer.result()
            raise EngineError(
                f"the engine did not answer within {timeout_s:g} s; is it starting or overloaded?"
            ) from None

    def observe(self, observer: Callable[[FrameDone], None]) -> None:
        """Have `observer` called in the engine thread after each published frame; it must return at once."""
        self._observers.append(observer)

    def run(self, finish: Callable[[], None]) -> None:
        """Work until every lane has ended, `max_frames`, a failure or `stop`.

        Args:
            finish: called at the end with nothing more in work, whatever went wrong.

        Raises:
            EngineError: what ended the run early; everything decided until then was published and saved.
        """
        self._ident, self.alive = threading.get_ident(), True
        items = self._perception.items()
        try:
            for item in items:
                self._do(item)
        except BaseException as error:
            self._problem = self._problem or error
        self.alive = False
        items.close()
        self._perception.leave()
        self._over = True
        while (call := self._schedule.next_call()) is not None:
            call.refuse("the engine has ended")
        finish()
        for sink in self._sinks:
            self.attempt(sink.close)
        if (problem := self._problem or self._source_problem) is not None:
            raise problem

    def introduce(self, lane: Lane) -> None:
        """Tell subscribers of a source before any source can end, and of its states from now on."""
        publisher = self.publisher
        if publisher is None:
            return

        def tell(state: State) -> None:
            publisher.set_state(lane.name, state)

        lane.feed.on_state = tell
        tell(lane.feed.state)

    def end(self, lane: Lane) -> None:
        """A source's last finals and its `eos`; what ended it is kept for `run` to raise."""
        if lane.ended:
            return
        lane.ending = lane.ended = True
        error = lane.feed.error
        lane.feed.end()
        self.publish_flushed(lane, self.attempt(lane.pipeline.flush) or [])
        if self.publisher is not None:
            self.attempt(self.publisher.eos, lane.name)
        if error is not None:
            self._source_problem = self._source_problem or error

    def publish_flushed(self, lane: Lane, scenes: list[Scene]) -> None:
        """Final scenes that no frame of their own brought about."""
        if self.publisher is not None and scenes:
            dropped = lane.feed.dropped
            for scene in scenes:
                self.attempt(self.publisher.publish, scene, dropped=dropped)
        self._save(None, scenes)

    def _save(self, frame: Frame | None, scenes: list[Scene]) -> None:
        for scene in scenes:
            self.report.scene(scene)
        if frame is not None or scenes:
            for sink in self._sinks:
                self.attempt(sink.step, frame, scenes)

    def attempt(self, action: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call `action`; the first thing that goes wrong in a run is kept for `run` to raise, the rest goes on."""
        try:
            return action(*arguments, **named)
        except Exception as error:
            self._problem = self._problem or error
            return None

    def _do(self, item: Item) -> None:
        if isinstance(item, Call):
            item.run()
        elif isinstance(item, Ended):
            self.end(item.lane)
        else:
            published = item.lane.frames
            try:
                self._decide(item)
            except BaseException:
                if item.lane.frames == published:
                    item.lane.feed.count_drop("failed")
                raise
            self._perception.done()
        if self._problem is not None:
            raise self._problem

    def _decide(self, item: Perceived) -> None:
        lane, frame = item.lane, item.frame
        scenes = lane.pipeline.decide(frame, item.percepts)
        decided_s = time.perf_counter()
        timing_ms = dict(lane.pipeline.timing_ms)
        if self.publisher is not None:
            dropped = lane.feed.dropped
            for scene in scenes:
                self.publisher.publish(scene, timing_ms=timing_ms, dropped=dropped)
        published_s = time.perf_counter()
        timing_ms["publish"] = (published_s - decided_s) * 1e3
        total_ms = (published_s - item.in_hand_s) * 1e3
        age_ms = CLOCK.age_ns(frame.t_capture_ns) / 1e6
        lane.published(frame, scenes, age_ms, published_s)
        self.report.frame(timing_ms, total_ms, age_ms, published_s)
        self._save(frame, scenes)
        followed = tuple(lane.pipeline.prompts.objects)
        done = FrameDone(lane.name, frame, scenes, timing_ms, total_ms, age_ms, followed)
        for observer in self._observers:
            self.attempt(observer, done)
        if self._on_frame is not None and self._problem is None:
            self._on_frame(frame, scenes)

    def _start_anew(self, taken: Taken) -> None:
        """Before the first frame after a gap: nothing before it says where things are now."""
        pipeline = taken.lane.pipeline
        # Behind a silence the world is the same one, and objects are remembered by their looks; behind a new
        # connection it may be another camera.
        self.publish_flushed(taken.lane, pipeline.cut() if taken.before == "gap" else pipeline.reset())
