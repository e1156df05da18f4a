"""One source through the engine: capture thread -> perceive thread -> decide, publish, save.

With cores to spare `perceive` of the next frame overlaps `decide` of this one; the scenes are those of
`Pipeline.step` either way.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import EngineError, ModelError
from engine.frame import Frame
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.capture import CaptureThread
from streaming.mailbox import Mailbox
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.sinks.background import BackgroundSink
from streaming.sources.base import Source

_POLL_S = 0.5
"""How often a thread that waits for the next frame looks whether it should stop."""


class Session:
    """Runs one source to its end, to `max_frames`, or until `stop`.

    Args:
        source: where frames come from.
        pipeline: the engine, fresh.
        report: collects statistics.
        every: process every frame (files) instead of the newest (live).
        publisher: where scenes go, or None.
        sinks: further receivers of frames and scenes, each on its own thread.
        max_frames: stop after so many processed frames.
        on_frame: called in the engine thread after each frame, e.g. for a progress bar.
        overlap: see one frame while the one before is decided; None: with more than two cores. On two, flow and
            network already use both: overlapping gains frames per second and loses latency.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        report: Report,
        *,
        every: bool,
        publisher: Publisher | None = None,
        sinks: Sequence[BackgroundSink] = (),
        max_frames: int | None = None,
        on_frame: Callable[[Frame, list[Scene]], None] | None = None,
        overlap: bool | None = None,
    ) -> None:
        self._source = source
        self._pipeline = pipeline
        self._report = report
        self._publisher = publisher
        self._sinks = sinks
        self._max_frames = max_frames
        self._on_frame = on_frame
        self._stop = threading.Event()
        # A file waits for us: frames queued behind it would only grow old. A camera may burst.
        size = 8 if source.live else 2
        self._mailbox = Mailbox("every" if every else "newest", size, live=source.live)
        self._capture = CaptureThread(source, self._mailbox, self._stop)
        # One frame waiting and one in work are what overlaps; more would only make frames old.
        self._perceived: queue.Queue[tuple[Frame, Percepts, float] | BaseException | None] = queue.Queue(1)
        if overlap is None:
            overlap = (os.cpu_count() or 1) > 2
        self._turns = threading.Semaphore(3 if overlap else 1)
        """Frames between capture and publishing: one decided, one waiting, one perceived."""
        self._problem: BaseException | None = None

    def stop(self) -> None:
        """End after the frame in hand; safe from signal handlers and other threads."""
        self._stop.set()

    def run(self) -> None:
        """Process frames until the end, then flush, publish the last finals and `eos`, close the sinks.

        Raises:
            EngineError: what ended the run early; everything decided until then was published and saved.
        """
        if self._publisher is not None:
            self._publisher.set_state(self._source.name, "live")
        self._capture.start()
        perceive = threading.Thread(target=self._perceive, name="perceive", daemon=True)
        perceive.start()
        try:
            while (item := self._perceived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._decide(*item)
                self._turns.release()
        except BaseException as error:
            self._problem = error
        self._stop.set()
        # A perceive thread that waits for room must get it, or it would never see the stop.
        while perceive.is_alive():
            try:
                self._perceived.get(timeout=0.05)
            except queue.Empty:
                continue
        self._capture.stop()
        self._finish()
        if self._problem is not None:
            raise self._problem

    def _perceive(self) -> None:
        frames = 0
        try:
            while not self._stop.is_set() and frames != self._max_frames:
                if not self._turns.acquire(timeout=_POLL_S):
                    continue
                frame = self._mailbox.get(timeout_s=_POLL_S)
                if frame is None:
                    self._turns.release()
                    if self._mailbox.finished:
                        break
                    continue
                in_hand_s = time.perf_counter()
                self._perceived.put((frame, self._pipeline.perceive(frame), in_hand_s))
                frames += 1
        except EngineError as error:
            self._perceived.put(error)
        except Exception as error:
            failure = ModelError(f"perception failed: {type(error).__name__} {' '.join(str(error).split())[:200]}")
            failure.__cause__ = error
            self._perceived.put(failure)
        finally:
            self._perceived.put(None)

    def _decide(self, frame: Frame, percepts: Percepts, in_hand_s: float) -> None:
        scenes = self._pipeline.decide(frame, percepts)
        decided_s = time.perf_counter()
        timing_ms = dict(self._pipeline.timing_ms)
        dropped = self.dropped
        if self._publisher is not None:
            for scene in scenes:
                self._publisher.publish(scene, timing_ms=timing_ms, dropped=dropped)
        published_s = time.perf_counter()
        timing_ms["publish"] = (published_s - decided_s) * 1e3
        age_ms = (time.time_ns() - frame.t_capture_ns) / 1e6
        self._report.frame(timing_ms, (published_s - in_hand_s) * 1e3, age_ms, published_s)
        self._report.set_dropped(dropped)
        for scene in scenes:
            self._report.scene(scene)
        for sink in self._sinks:
            self._attempt(sink.step, frame, scenes)
        if self._problem is not None:
            raise self._problem
        if self._on_frame is not None:
            self._on_frame(frame, scenes)

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by cause."""
        counts = self._capture.dropped
        late = sum(sink.dropped for sink in self._sinks)
        return {**counts, "sink_late": late} if late else counts

    def _attempt(self, action: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call `action`; the first thing that goes wrong in a run is kept for `run` to raise, the rest goes on."""
        try:
            return action(*arguments, **named)
        except Exception as error:
            self._problem = self._problem or error
            return None

    def _finish(self) -> None:
        """Last finals, `eos`, closed files; one that fails does not keep the others from theirs."""
        scenes = self._attempt(self._pipeline.flush) or []
        for scene in scenes:
            self._report.scene(scene)
            if self._publisher is not None:
                self._attempt(self._publisher.publish, scene, dropped=self.dropped)
        if self._publisher is not None:
            self._attempt(self._publisher.eos, self._source.name)
        for sink in self._sinks:
            self._attempt(sink.step, None, scenes)
            self._attempt(sink.close)
        self._report.set_dropped(self.dropped)
