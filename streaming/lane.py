"""One source on its way through the engine: its feed, its pipeline, its counts."""

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from engine.frame import Frame
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.clock import CLOCK
from streaming.feed import Feed
from streaming.report import Samples
from streaming.wire import State

_RATE_FRAMES = 60
"""Frames over which the current rate is measured."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source is doing.

    Attributes:
        name: of the source.
        uri: without its password.
        state: "live", "stalled", "reconnecting" or "ended".
        fps: frames published per second over the latest ones; 0 once none has come for two seconds.
        frames: published.
        dropped: frames dropped, by cause.
        age_ms: capture to now of the newest published frame, None before the first.
        captured: frames the source had; without those in work it is `frames` plus `dropped`.
        paused: whether its frames are left out for now.
        live: whether frames come at the pace of the world.
        reconnects: how often it came back.
        problem: why it is not live, empty when it is.
        size: (height, width) of its frames, None before the first.
    """

    name: str
    uri: str
    state: State
    fps: float
    frames: int
    dropped: dict[str, int]
    age_ms: float | None
    captured: int
    paused: bool
    live: bool
    reconnects: int
    problem: str
    size: tuple[int, int] | None


class Lane:
    """A feed and the pipeline that sees it; independent of every other lane.

    Args:
        feed: where frames come from.
        pipeline: the engine's state for this source, fresh.

    Attributes:
        frames: published so far.
        newest: the newest published frame and its provisional scene.
        age_ms: capture to publishing, of the latest frames.
        ending: whether the end is on its way to the engine thread.
        ended: whether its last scenes are out.
    """

    def __init__(self, feed: Feed, pipeline: Pipeline) -> None:
        self.feed = feed
        self.pipeline = pipeline
        self.frames = 0
        self.newest: tuple[Frame, Scene] | None = None
        self.age_ms = Samples()
        self.ending = False
        self.ended = False
        self._published_s: deque[float] = deque(maxlen=_RATE_FRAMES)

    @property
    def name(self) -> str:
        """Of the source."""
        return self.feed.name

    def published(self, frame: Frame, scenes: list[Scene], age_ms: float, now_s: float) -> None:
        """Count a frame whose scenes are out."""
        self.frames += 1
        self.age_ms.add(age_ms)
        self._published_s.append(now_s)
        provisional = [scene for scene in scenes if scene.kind == "provisional"]
        if provisional:
            self.newest = (frame, provisional[-1])

    def status(self) -> SourceStatus:
        """How the source is doing now; from any thread."""
        times_s = list(self._published_s)
        recent = len(times_s) > 1 and time.perf_counter() - times_s[-1] < 2.0
        newest = self.newest
        feed = self.feed
        return SourceStatus(
            name=self.name,
            uri=feed.uri,
            state=feed.state,
            fps=round((len(times_s) - 1) / max(1e-6, times_s[-1] - times_s[0]), 2) if recent else 0.0,
            frames=self.frames,
            dropped=feed.dropped,
            age_ms=round(CLOCK.age_ns(newest[0].t_capture_ns) / 1e6, 1) if newest is not None else None,
            captured=feed.captured,
            paused=feed.paused,
            live=feed.live,
            reconnects=feed.reconnects,
            problem=feed.problem,
            size=feed.size,
        )

    def summary(self) -> dict[str, Any]:
        """What `--stats-json` says of the source."""
        status = self.status()
        return {
            "uri": status.uri,
            "state": status.state,
            "captured": status.captured,
            "frames": status.frames,
            "dropped": status.dropped,
            "reconnects": status.reconnects,
            "age_ms": self.age_ms.summary(),
        }


@dataclass(slots=True)
class Retired:
    """What is kept of a removed source: its counts, and where its ids and frame numbers go on.

    Attributes:
        summary: as of `Lane.summary`, over all times the source was there.
        next_id, next_index: of the source, should it be added again.
    """

    summary: dict[str, Any]
    next_id: int
    next_index: int

    @classmethod
    def of(cls, lane: Lane, before: "Retired | None") -> "Retired":
        """What is kept of `lane`, with what was kept of an earlier one of the same name."""
        retired = cls(lane.summary(), lane.pipeline.next_id, lane.feed.next_index)
        if before is not None:
            retired.add(before.summary)
        return retired

    def add(self, earlier: dict[str, Any]) -> None:
        """Count what an earlier source of the name did."""
        for key in ("captured", "frames", "reconnects"):
            self.summary[key] += earlier[key]
        self.summary["dropped"] = dict(Counter(self.summary["dropped"]) + Counter(earlier["dropped"]))
