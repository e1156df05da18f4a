"""A source that comes back: one connection after the other, watched from outside.

A connection is a capture thread with a mailbox of its own. The watchdog thread calls `Feed.watch`; the thread that
perceives calls `Feed.take`. What a lost connection delivered before it was lost is still processed.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import EngineError
from engine.frame import Frame
from streaming.backoff import Backoff
from streaming.capture import CaptureThread
from streaming.mailbox import Mailbox
from streaming.sources.base import Source, redact
from streaming.sources.deferred import DeferredSource
from streaming.wire import State

_log = logging.getLogger("unseen.source")

Break = Literal["none", "gap", "new"]
"""What lies between a frame and the one before: nothing, a silence, or another connection."""

_GRACE_S = 1.0
"""Beyond its own timeouts a read is given so long to come back before its thread is left behind."""
_OPENING_S = 10.0
"""Opening may mean to start a process (ROS); network streams keep their own limit."""
_MAX_ABANDONED = 2
"""Reads that never came back; a device that hangs for good must not cost a thread per attempt."""
_LASTING_S = 2.0
"""A connection that delivered for so long was a good one: the next attempt comes soon."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a live source may be silent.

    Attributes:
        open_s: until the first frame of a connection.
        read_s: between two frames; then it is opened anew.
    """

    open_s: float = 5.0
    read_s: float = 5.0


class Feed:
    """Frames of one source, over as many connections as it takes.

    The frame index counts every frame the source had, over all connections, so it never goes back.

    Args:
        source: the first connection, open or deferred.
        every: keep every frame (a file waits; a live source drops the oldest) instead of the newest.
        reopen: makes the next connection; None: the end of the first one is the end.
        timeouts: the watchdog's limits.
        paced: play a file at its own frame rate; None: with the newest-frame policy.
        on_change: called when `take` may have something new.
        on_state: called with every new state.
        backoff: waits between attempts.

    Attributes:
        name, live: of the source.
        every: as given.
        state: "live", "stalled", "reconnecting" or "ended".
        problem: what the last connection ended with, without passwords; empty when nothing went wrong.
        reconnects: how often it came back.
    """

    def __init__(
        self,
        source: Source,
        *,
        every: bool,
        reopen: Callable[[], Source] | None = None,
        timeouts: Timeouts | None = None,
        paced: bool | None = None,
        on_change: Callable[[], None] | None = None,
        on_state: Callable[[State], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = source.name
        self.uri = source.display_uri
        self.live = source.live
        self.frame_count, self.size = source.frame_count, source.size
        self.on_change, self.on_state = on_change, on_state
        self.state: State = "reconnecting" if isinstance(source, DeferredSource) else "live"
        self.problem = ""
        self.reconnects = 0
        self._raw_uri = source.uri
        self.every = every
        self._paced = paced
        # What promises a number of frames has an end; only what has none is expected back.
        self._reopen = reopen if source.live and source.frame_count is None else None
        self._timeouts = timeouts or Timeouts()
        self._backoff = backoff or Backoff()
        self._lock = threading.RLock()
        self._running = threading.Event()
        self._running.set()
        self._closed = False
        self._retry_at_s = 0.0
        self._abandoned: list[CaptureThread] = []
        self._past_captured = 0
        self._past_dropped: Counter[str] = Counter()
        self._first_index = 0
        self._base = 0
        self._next_break: Break = "none"
        self._connection: CaptureThread | None = self._prepare(source)

    def begin_at(self, index: int) -> None:
        """Number the frames from `index` on; before `start`."""
        self._first_index = self._base = index

    @property
    def next_index(self) -> int:
        """The index of the next frame, if nothing is lost before it."""
        return self._first_index + self.captured

    def start(self) -> None:
        """Begin to read."""
        with self._lock:
            if self._connection is not None and not self._closed:
                self._connection.start()

    def take(self) -> tuple[Frame, Break] | None:
        """The next frame and what lies before it; None when there is none now."""
        with self._lock:
            thread = self._connection
            if thread is None or not self._running.is_set() or not len(thread.mailbox):
                return None
            frame = thread.mailbox.get(0)
            if frame is None:
                return None
            self._tell("live", "frames")
            before, self._next_break = self._next_break, "none"
            gaps = thread.gaps
            while gaps and gaps[0] <= frame.index:
                gaps.popleft()
                before = "gap" if before == "none" else before
            self.size = (frame.image.shape[0], frame.image.shape[1])
            return (replace(frame, index=frame.index + self._base) if self._base else frame), before

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        thread = self._connection
        return self._reopen is None and (thread is None or thread.mailbox.over)

    @property
    def error(self) -> BaseException | None:
        """What ended the feed, once it is over."""
        thread = self._connection
        return thread.mailbox.error if thread is not None and self.over else None

    @property
    def fps(self) -> float | None:
        """Nominal frames per second, None when unknown."""
        thread = self._connection
        return thread.source.fps if thread is not None else None

    @property
    def captured(self) -> int:
        """Frames the source had so far, over all connections."""
        with self._lock:
            return self._past_captured + sum(thread.captured for thread in self._threads())

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped before they were taken, by cause."""
        with self._lock:
            total = Counter(self._past_dropped)
            for thread in self._threads():
                total.update(thread.dropped)
            return dict(total)

    def count_drop(self, cause: str, frames: int = 1) -> None:
        """Count frames that were taken and are not published."""
        if frames:
            with self._lock:
                self._past_dropped[cause] += frames

    @property
    def paused(self) -> bool:
        """Whether `take` gives nothing because of `pause`."""
        return not self._running.is_set()

    def pause(self) -> None:
        """Hand out nothing until `resume`: a file waits; frames of a live source are counted as "paused"."""
        with self._lock:
            self._running.clear()
            if self.live and self._connection is not None:
                self._connection.count_drop("paused", self._connection.mailbox.drain())

    def resume(self) -> None:
        """Go on with the newest frame, or where a file was."""
        with self._lock:
            self._running.set()
        self._wake()

    def watch(self, now_s: float) -> None:
        """Look after the connection: tell its state, give it up, make the next one; from the watchdog thread."""
        with self._lock:
            if self._closed or not self.live:
                return
            thread = self._connection
            if thread is None:
                if now_s >= self._retry_at_s:
                    self._connect(now_s)
                return
            if self.paused:
                # One that was on its way in when the pause began would be an old one at its end.
                thread.count_drop("paused", thread.mailbox.drain())
            if thread.mailbox.over:
                if self._reopen is not None:
                    self._lose(now_s, self._why(thread))
                return
            if thread.mailbox.closed:
                return  # the last frames of a lost connection are taken first
            silent_s = now_s - thread.heard_s
            if thread.decoded and silent_s <= thread.silence_limit_s:
                self._tell("live", "frames")
            elif silent_s > thread.silence_limit_s and self.state == "live":
                self._tell("stalled", f"no frame for {silent_s:.1f} s")
            limit_s = self._limit_s(thread)
            if silent_s > limit_s + _GRACE_S and self._reopen is not None:
                self._lose(now_s, f"no frame for {silent_s:.1f} s, limit {limit_s:g} s")

    def end(self) -> None:
        """The feed is over for whoever asks."""
        with self._lock:
            problem = self._connection.mailbox.error if self._connection is not None else None
            self._closed = True
            over = self._connection is not None and self._connection.mailbox.over
            why = self._clean(problem) if problem else "end of stream" if over else "the run ended"
            self._tell("ended", why)
            self._reopen = None
            if self._connection is not None:
                self._connection.abandon()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End every connection and count what they leave behind; False when a read still blocks."""
        with self._lock:
            self._closed = True
            threads = self._threads()
            for thread in threads:
                thread.abandon()
        ended = [thread.stop(timeout_s) for thread in threads]
        with self._lock:
            for thread in threads:
                thread.count_drop("stopped", thread.mailbox.drain())
        return all(ended)

    # The rest is called with the lock held.

    def _prepare(self, source: Source) -> CaptureThread:
        # A file waits for us: frames queued behind it would only grow old. A camera may burst.
        size = 8 if self.live else 2
        mailbox = Mailbox("every" if self.every else "newest", size, live=self.live, on_change=self._wake)
        return CaptureThread(source, mailbox, running=self._running, paced=self._paced)

    def _wake(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _threads(self) -> list[CaptureThread]:
        return [*self._abandoned, *([self._connection] if self._connection is not None else [])]

    def _connect(self, now_s: float) -> None:
        self._forget_ended()
        if len(self._abandoned) >= _MAX_ABANDONED:
            self._retry_at_s = now_s + self._backoff.next_s()
            return
        assert self._reopen is not None
        # Everything the old connection had is counted: the index goes on behind it.
        self._base = self.next_index
        self._next_break = "new"
        self._connection = self._prepare(DeferredSource(self._raw_uri, self.name, self._reopen))
        self._connection.start()

    def _limit_s(self, thread: CaptureThread) -> float:
        """Longest silence of a connection that is not left behind yet."""
        if thread.decoded:
            return self._timeouts.read_s
        opening = isinstance(thread.source, DeferredSource) and thread.source.opened is None
        return self._timeouts.open_s + (_OPENING_S if opening else self._timeouts.read_s)

    def _lose(self, now_s: float, why: str) -> None:
        thread = self._connection
        assert thread is not None
        if thread.decoded and now_s - thread.started_s > _LASTING_S:
            self._backoff.reset()
        thread.abandon()
        thread.count_drop("stopped", thread.mailbox.drain())
        self._connection = None
        self._abandoned.append(thread)
        self.problem = why
        wait_s = self._backoff.next_s()
        self._retry_at_s = now_s + wait_s
        self._tell("reconnecting", why, attempt=self._backoff.attempts, retry_in_s=round(wait_s, 2))

    def _forget_ended(self) -> None:
        """Keep the counts of threads that have ended, and the threads that have not."""
        for thread in [thread for thread in self._abandoned if not thread.is_alive()]:
            self._abandoned.remove(thread)
            self._past_captured += thread.captured
            self._past_dropped.update(thread.dropped)

    def _why(self, thread: CaptureThread) -> str:
        error = thread.mailbox.error
        return self._clean(error) if error is not None else f"the sender closed it after {thread.decoded} frames"

    def _clean(self, error: BaseException) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(self._raw_uri, redact(self._raw_uri))

    def _tell(self, state: State, why: str, **facts: object) -> None:
        if state == self.state:
            return
        before, self.state = self.state, state
        if state == "live":
            self.problem = ""
            self.reconnects += before == "reconnecting"
        line = {"source": self.name, "state": state, "was": before, **facts, "frames": self.captured, "reason": why}
        level = logging.WARNING if state in ("stalled", "reconnecting") else logging.INFO
        _log.log(level, " ".join(f"{key}={_quoted(value)}" for key, value in line.items()))
        if self.on_state is not None and state != "ended":  # the end is told after the last scenes
            try:
                self.on_state(state)
            except EngineError as error:
                _log.debug("state not published: %s", error)


def _quoted(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', "'") + '"' if not text or " " in text or "=" in text else text
