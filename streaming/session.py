"""Several sources through one engine, and everything other threads may ask of it while it runs.

lanes (feed + pipeline each) -> Schedule -> Perception -> engine thread (`Session.run`) -> publisher, sinks
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from engine.errors import ModelError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.scene import Scene
from streaming.engine_thread import EngineThread, FrameDone
from streaming.lane import Lane, Retired, SourceStatus
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.schedule import Schedule
from streaming.sinks.background import BackgroundSink
from streaming.watchdog import Watchdog
from streaming.wire import ModelInfo

T = TypeVar("T")

_LEAVE_S = 2.0
"""At the end all reads together get so long to come back."""


class Session:
    """Runs its sources to their ends, to `max_frames`, or until `stop`.

    Args:
        lanes: the sources, each with a fresh pipeline.
        report: collects statistics.
        open_lane: makes a lane from `[NAME=]URI` for `add_source`.
        publisher: where scenes go, or None.
        sinks: further receivers of frames and scenes, each on its own thread.
        max_frames: stop after so many processed frames, of all sources together.
        on_frame: called in the engine thread after each frame, e.g. for a progress bar.
        overlap: see one frame while the one before is decided; None: with more than two cores. On two, flow and
            network already use both: overlapping gains frames per second and loses latency.

    Attributes:
        report: as given.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        report: Report,
        *,
        open_lane: Callable[[str], Lane] | None = None,
        publisher: Publisher | None = None,
        sinks: Sequence[BackgroundSink] = (),
        max_frames: int | None = None,
        on_frame: Callable[[Frame, list[Scene]], None] | None = None,
        overlap: bool | None = None,
    ) -> None:
        self.report = report
        self._schedule = Schedule(list(lanes))
        self._open_lane = open_lane
        self._sinks = list(sinks)
        self._engine = EngineThread(
            self._schedule,
            report,
            publisher=publisher,
            sinks=sinks,
            max_frames=max_frames,
            on_frame=on_frame,
            overlap=overlap,
        )
        self._watchdog = Watchdog(lambda: [lane.feed for lane in self._schedule.lanes])
        self._books = threading.Lock()
        self._leaving: list[Lane] = []
        self._retired: dict[str, Retired] = {}
        self._network: Network | None = None
        self._generation = 1

    def run(self) -> None:
        """Process frames until the end, then flush, publish the last finals and `eos`, close the sinks.

        Raises:
            EngineError: what ended the run early; everything decided until then was published and saved.
        """
        for lane in self._schedule.lanes:
            self._engine.introduce(lane)
        for lane in self._schedule.lanes:
            lane.feed.start()
        self._watchdog.start()
        self._engine.run(self._finish)

    def stop(self) -> None:
        """End after the frame in hand; safe from signal handlers and other threads."""
        self._engine.stop()

    @property
    def running(self) -> bool:
        """Whether the engine takes frames or waits for them."""
        return self._engine.alive

    def call(self, action: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Run `action` in the engine thread between two frames: none is being perceived or waits to be decided.

        Raises:
            EngineError: the engine has ended, or did not come to it in time (then it is not run any more).
            Whatever `action` raises.
        """
        return self._engine.call(action, timeout_s)

    def observe(self, observer: Callable[[FrameDone], None]) -> None:
        """Have `observer` called in the engine thread after each published frame; it must return at once."""
        self._engine.observe(observer)

    def sources(self) -> list[SourceStatus]:
        """How every source is doing, in the order in which they were added."""
        return [lane.status() for lane in self._schedule.lanes]

    def add_source(self, text: str) -> str:
        """Open `[NAME=]URI` and see it from now on; returns its name.

        Raises:
            UsageError: the name is taken, or the options inside the URI are wrong.
            SourceError: it cannot be opened.
        """
        if self._open_lane is None:
            raise UsageError("sources cannot be added to this session")
        lane = self._open_lane(text)
        try:
            self.call(lambda: self._attach(lane))
        except BaseException:
            lane.feed.stop()
            raise
        return lane.name

    def remove_source(self, name: str) -> None:
        """Publish what is decided of a source and its end, and see it no more.

        Raises:
            UsageError: no source of that name.
        """
        lane = self._lane(name)
        self.call(lambda: self._detach(lane))
        lane.feed.stop()
        self._retire(lane)

    def pause(self, name: str | None = None) -> None:
        """Leave out a source's frames until `resume`, None: of all; a file waits.

        Raises:
            UsageError: no source of that name.
        """
        for lane in self._named(name):
            lane.feed.pause()

    def resume(self, name: str | None = None) -> None:
        """See a paused source again, None: all of them.

        Raises:
            UsageError: no source of that name.
        """
        for lane in self._named(name):
            lane.feed.resume()

    def track(
        self,
        source: str | None,
        *,
        mask: np.ndarray | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> int:
        """Follow *this one* in a source from its newest frame on; see `Pipeline.track`.

        Args:
            source: name, None for the only one.

        Raises:
            UsageError: no such source, or what is wrong with the prompt.
        """
        lane = self._lane(source)
        return self.call(lambda: lane.pipeline.track(mask=mask, box=box, point=point))

    def forget(self, source: str | None, identity: int) -> None:
        """Let a tracked object go.

        Raises:
            UsageError: no such source, or an id that is not tracked.
        """
        lane = self._lane(source)
        self.call(lambda: lane.pipeline.untrack(identity))

    def snapshot(self, source: str | None = None) -> tuple[Frame, Scene]:
        """The newest published frame of a source and its provisional scene.

        Raises:
            UsageError: no such source, or nothing published yet.
        """
        lane = self._lane(source)
        newest = lane.newest
        if newest is None:
            raise UsageError(f"source '{lane.name}' has no frame yet ({lane.feed.state})")
        return newest

    def swap_model(self, network: Network, timeout_s: float = 30.0) -> int:
        """See with another model from the next frame on; returns its generation.

        Every window is decided and published under the old model first.

        Raises:
            EngineError: the engine has ended.
        """
        return self.call(lambda: self._swap(network), timeout_s)

    def fall_back(self, choose: Callable[[Network, ModelError], Network | None] | None) -> None:
        """Have `choose` name another network when one that was swapped in fails on a frame, which is then seen again.

        It is called in the engine thread. Without it, and where it answers None, the failure ends the run.
        """

        def other_model(error: ModelError) -> bool:
            failed = self._network
            network = None if choose is None or failed is None else choose(failed, error)
            if network is not None:
                self._swap(network)
            return network is not None

        self._engine.other_model = other_model

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by cause, of all sources."""
        total: Counter[str] = Counter()
        for summary in self._summaries().values():
            total.update(summary["dropped"])
        return dict(total)

    # In the engine thread.

    def _swap(self, network: Network) -> int:
        for lane in self._schedule.lanes:
            if not lane.ended:
                self._engine.publish_flushed(lane, lane.pipeline.swap(network))
        # Not before: the scenes published above tell the generation of the model that saw them.
        self._generation += 1
        network.generation = self._generation
        self._network = network
        model: dict[str, Any] = {"name": network.name, "hash": network.hash, "generation": network.generation}
        if self._engine.publisher is not None:
            self._engine.publisher.model = ModelInfo(**model)
        self.report.set_model(model)
        return network.generation

    def _attach(self, lane: Lane) -> None:
        if any(other.name == lane.name for other in self._schedule.lanes):
            raise UsageError(f"source '{lane.name}' exists already: give another name, NAME=URI")
        if self._network is not None:
            lane.pipeline.swap(self._network)
        if (before := self._retired.get(lane.name)) is not None:
            lane.pipeline.continue_ids(before.next_id)
            lane.feed.begin_at(before.next_index)
        self._engine.introduce(lane)
        self._schedule.add(lane)
        lane.feed.start()

    def _detach(self, lane: Lane) -> None:
        with self._books:
            self._schedule.remove(lane)
            self._leaving.append(lane)
        self._engine.end(lane)

    def _retire(self, lane: Lane) -> None:
        """Keep the counts of a removed source, and let go of the rest."""
        with self._books:
            self._leaving.remove(lane)
            self._retired[lane.name] = Retired.of(lane, self._retired.get(lane.name))

    def _summaries(self) -> dict[str, dict[str, Any]]:
        """Counts by source, over all times it was there."""
        with self._books:
            found = {name: retired.summary for name, retired in self._retired.items()}
            for lane in (*self._leaving, *self._schedule.lanes):
                found[lane.name] = Retired.of(lane, self._retired.get(lane.name)).summary
            return found

    def _finish(self) -> None:
        """Last finals and `eos` of every source; no thread goes on reading."""
        self._watchdog.stop()
        lanes = self._schedule.lanes
        for lane in lanes:
            self._engine.end(lane)
        deadline_s = time.monotonic() + _LEAVE_S
        for lane in lanes:
            lane.feed.stop(max(0.1, deadline_s - time.monotonic()))
        self.report.set_sources(self._summaries(), sum(sink.dropped for sink in self._sinks))

    def _lane(self, name: str | None) -> Lane:
        lanes = self._schedule.lanes
        if name is None and len(lanes) == 1:
            return lanes[0]
        for lane in lanes:
            if lane.name == name:
                return lane
        known = " ".join(lane.name for lane in lanes) or "none"
        raise UsageError(f"no source '{name}'; there are: {known}" if name else f"name one of the sources: {known}")

    def _named(self, name: str | None) -> list[Lane]:
        return list(self._schedule.lanes) if name is None else [self._lane(name)]
