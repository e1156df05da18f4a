"""The newest frame of every source, encoded for browsers that ask for it, on a thread of its own."""

import itertools
import logging
import threading
import time
from collections import Counter, deque
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

SATURATED_RATE_HZ = 5.0
"""While the engine has no time to spare, whatever the page takes is taken from its frames."""

_SATURATED = 0.9
"""Share of its time the engine is at work."""

_MEMORY = 0.97
"""What of the past counts one frame later: the share is that of the last second or so."""

SHARE_OF_A_CORE = 0.04
"""Encoding pauses long enough to stay below this, however large the frames and however many the sources."""

_LONGEST_PAUSE_S = 1.0
"""The first picture, before the codec is loaded, is a dear one; the next must not wait for seconds."""

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
        """For the encoder: there is a new frame that a viewer waits for."""
        self._news = threading.Condition(lock)
        """For viewers: a new message."""
        self._shown: dict[str, _Shown] = {}
        self._asked: Counter[str] = Counter()
        """Viewers that wait for the next message, by source."""
        # Not from 1: a page that outlives a restart of the engine must not take new messages for old ones.
        self._numbers = itertools.count(time.time_ns() // 1_000_000 % 2**40)
        self._closed = False
        self._idle = False
        """Whether the encoder waits to be told; else it looks by itself once its pause is over."""
        self._not_before_s = 0.0
        self._observed_s = 0.0
        self._worked_s = self._passed_s = 0.0
        """Of the latest frames, faded: what they took, and the time they came in."""
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)
        self._thread.start()

    def observe(self, done: FrameDone) -> None:
        """Remember the newest frame and its provisional scene; microseconds, in the engine's thread."""
        scene = next((scene for scene in reversed(done.scenes) if scene.kind == "provisional"), None)
        if scene is None:
            return
        now_s = time.monotonic()
        sample = Sample(done.frame.index, now_s * 1e3, done.age_ms, done.timing_ms)
        watched = done.lane in self.viewers.watched()
        with self._work:
            shown = self._shown.get(done.lane)
            if shown is None:
                self._shown[done.lane] = shown = _Shown(done.frame, scene, done.followed, deque(maxlen=_SAMPLES))
            shown.frame, shown.scene, shown.followed, shown.fresh = done.frame, scene, done.followed, True
            shown.samples.append(sample)
            if self._observed_s:
                self._worked_s = _MEMORY * self._worked_s + done.total_ms / 1e3
                self._passed_s = _MEMORY * self._passed_s + now_s - self._observed_s
            self._observed_s = now_s
            if not watched:
                shown.message = b""  # whoever comes next must not see the past first
            self._wake(done.lane)

    def next(self, source: str, after: int, timeout_s: float = _IDLE_S) -> bytes:
        """The newest message of `source` that is not number `after`; without one, only the states of the sources.

        Args:
            source: its name; an unknown one gets states only.
            after: `number` of the message the viewer has, anything else for none.
        """
        with self._news:
            self._asked[source] += 1
            self._wake(source)
            # A page that does not know yet what there is to see should not wait for it.
            self._news.wait_for(lambda: self._closed or self._ready(source, after), timeout_s if source else 0.0)
            self._asked[source] -= 1
            if not self._asked[source]:
                del self._asked[source]  # names are the viewers' choice: they must not pile up
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

    @property
    def _rate_hz(self) -> float:
        """Pictures per second for now."""
        return SATURATED_RATE_HZ if self._worked_s > _SATURATED * self._passed_s > 0 else HIGHEST_RATE_HZ

    def _wake(self, source: str) -> None:
        """Tell the encoder, if it waits for that, that a viewer waits for what is there now; the lock is held."""
        shown = self._shown.get(source)
        if self._idle and shown is not None and shown.fresh and self._asked[source]:
            self._work.notify()

    def _ready(self, source: str, after: int) -> bool:
        """Whether there is a message to send: not the one the viewer has, and no old one that may be made anew now."""
        shown = self._shown.get(source)
        if shown is None or not shown.message or shown.number == after:
            return False
        return not shown.fresh or time.monotonic() < max(shown.due_s, self._not_before_s)

    def _run(self) -> None:
        while True:
            with self._work:
                shown = self._wait_for_work()
                if shown is None:
                    return
                frame, scene, followed, samples = shown.frame, shown.scene, shown.followed, list(shown.samples)
                shown.samples.clear()
                shown.fresh = False
                shown.due_s = time.monotonic() + 1.0 / self._rate_hz
            start_s = time.thread_time()
            try:
                number, message = self._encode(frame, scene, followed, samples)
            except Exception as error:  # one odd frame must not end the page, and the engine not at all
                _log.warning("frame %d of %s cannot be shown: %s", frame.index, frame.source, error)
                continue
            pause_s = min(_LONGEST_PAUSE_S, (time.thread_time() - start_s) / SHARE_OF_A_CORE)
            self._not_before_s = time.monotonic() + pause_s
            with self._news:
                shown.number, shown.message = number, message
                self._news.notify_all()

    def _wait_for_work(self) -> _Shown | None:
        """The source asked for that has waited longest for its turn, None at the end; the lock is held."""
        while not self._closed:
            waiting = [shown for name, shown in self._shown.items() if shown.fresh and self._asked[name]]
            shown = min(waiting, key=lambda shown: shown.due_s, default=None)
            if shown is None:
                self._idle = True
                self._work.wait()
                self._idle = False
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
