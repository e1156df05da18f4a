"""The newest frame of every source, encoded for browsers while somebody watches, on a thread of its own."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from engine.frame import Frame
from engine.scene import Scene
from streaming.engine_thread import FrameDone
from streaming.preview.message import Sample, describe_samples, describe_scene, encode_view, pack
from streaming.preview.viewers import Viewers

_log = logging.getLogger("unseen.preview")

HIGHEST_RATE_HZ = 10.0

SHARE_OF_A_CORE = 0.04
"""Encoding pauses long enough to stay below this, however large the frames and however many the sources."""

_IDLE_S = 1.0
"""A viewer of a source without new frames hears of its state this often."""

_SAMPLES = 64
"""Frames between two messages that still reach the charts: two seconds at 30 Hz."""


@dataclass(slots=True)
class _Shown:
    """One source: its newest frame, and the message made from an earlier or the same one."""

    frame: Frame
    scene: Scene
    followed: Collection[int]
    samples: deque[Sample]
    fresh: bool = True
    due_s: float = 0.0
    number: int = 0
    message: bytes = b""


class LiveView:
    """Observes a session without making it wait, and hands its newest frames to viewers.

    Args:
        states: what is known of every source, as JSON values; called in several threads, often.

    Attributes:
        viewers: who watches.
    """

    def __init__(self, states: Callable[[], list[dict[str, Any]]]) -> None:
        self.viewers = Viewers()
        self._states = states
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        """For the encoder: a watched source has a new frame, or a viewer came."""
        self._news = threading.Condition(lock)
        """For viewers: a new message."""
        self._shown: dict[str, _Shown] = {}
        # Not from 1: a page that outlives a restart of the engine must not take new messages for old ones.
        self._numbers = itertools.count(time.time_ns() // 1_000_000 % 2**40)
        self._closed = False
        self._not_before_s = 0.0
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)
        self._thread.start()

    def observe(self, done: FrameDone) -> None:
        """Remember the newest frame and its provisional scene; microseconds, in the engine's thread."""
        scene = next((scene for scene in reversed(done.scenes) if scene.kind == "provisional"), None)
        if scene is None:
            return
        sample = Sample(done.frame.index, time.monotonic() * 1e3, done.age_ms, done.timing_ms)
        watched = done.lane in self.viewers.watched()
        with self._work:
            shown = self._shown.get(done.lane)
            if shown is None:
                self._shown[done.lane] = shown = _Shown(done.frame, scene, done.followed, deque(maxlen=_SAMPLES))
            shown.frame, shown.scene, shown.followed, shown.fresh = done.frame, scene, done.followed, True
            shown.samples.append(sample)
            if watched:
                self._work.notify()
            else:
                shown.message = b""  # whoever comes next must not see the past first

    def next(self, source: str, after: int, timeout_s: float = _IDLE_S) -> bytes:
        """The newest message of `source` that is not number `after`; without one, only the states of the sources.

        Args:
            source: its name; an unknown one gets states only.
            after: `number` of the message the viewer has, anything else for none.
        """
        with self._news:
            # A source whose frames stand still is encoded for its first viewer.
            self._work.notify()
            # A page that does not know yet what there is to see should not wait for it.
            self._news.wait_for(lambda: self._closed or self._ready(source, after), timeout_s if source else 0.0)
            shown = self._shown.get(source)
            if shown is not None and shown.message and shown.number != after:
                return shown.message
        return pack({"source": source, "sources": self._states(), "viewers": self.viewers.count()})

    def newest(self, source: str) -> tuple[Frame, Scene] | None:
        """Newest frame of `source` and its provisional scene."""
        with self._news:
            shown = self._shown.get(source)
            return None if shown is None else (shown.frame, shown.scene)

    def close(self) -> None:
        """End the encoder and every waiting viewer; closing twice is allowed."""
        with self._news:
            self._closed = True
            self._work.notify_all()
            self._news.notify_all()
        self._thread.join()

    def _ready(self, source: str, after: int) -> bool:
        shown = self._shown.get(source)
        return shown is not None and bool(shown.message) and shown.number != after

    def _run(self) -> None:
        while True:
            with self._work:
                shown = self._wait_for_work()
                if shown is None:
                    return
                frame, scene, followed, samples = shown.frame, shown.scene, shown.followed, list(shown.samples)
                shown.samples.clear()
                shown.fresh = False
                shown.due_s = time.monotonic() + 1.0 / HIGHEST_RATE_HZ
            start_s = time.thread_time()
            try:
                number, message = self._encode(frame, scene, followed, samples)
            except Exception as error:  # one odd frame must not end the page, and the engine not at all
                _log.warning("frame %d of %s cannot be shown: %s", frame.index, frame.source, error)
                continue
            self._not_before_s = time.monotonic() + (time.thread_time() - start_s) / SHARE_OF_A_CORE
            with self._news:
                shown.number, shown.message = number, message
                self._news.notify_all()

    def _wait_for_work(self) -> _Shown | None:
        """The watched source that has waited longest for its turn, None at the end; the lock is held."""
        while not self._closed:
            watched = self.viewers.watched()
            waiting = [shown for name, shown in self._shown.items() if shown.fresh and name in watched]
            shown = min(waiting, key=lambda shown: shown.due_s, default=None)
            if shown is None:
                self._work.wait()
                continue
            pause_s = max(shown.due_s, self._not_before_s) - time.monotonic()
            if pause_s <= 0:
                return shown
            self._work.wait(pause_s)
        return None

    def _encode(
        self, frame: Frame, scene: Scene, followed: Collection[int], samples: list[Sample]
    ) -> tuple[int, bytes]:
        size, labels, jpeg = encode_view(frame, scene)
        number = next(self._numbers)
        state = {
            "number": number,
            "source": frame.source,
            "sources": self._states(),
            "viewers": self.viewers.count(),
            "view": list(size),
            "frame": describe_scene(frame, scene, followed),
            "samples": describe_samples(samples),
        }
        return number, pack(state, labels, jpeg)
