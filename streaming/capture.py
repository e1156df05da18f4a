"""One thread per connection to a source: decodes everything and puts it into a mailbox."""

import atexit
import threading
import time
from collections import deque

from engine.errors import EngineError, SourceError
from engine.frame import Frame
from streaming.mailbox import Mailbox
from streaming.sources.base import Source

# A native read that returns while the interpreter shuts down aborts the process.
EXIT_PATIENCE_S = 5.0
SILENCE_S = 1.0
"""A live source that delivers nothing for so long (and for three of its frame times) has a gap: what moved
between the frames on either side of it cannot be followed."""
_FALLBACK_FPS = 30.0


class CaptureThread(threading.Thread):
    """Reads a source until it ends, fails or is stopped, and closes it.

    The source is closed by this thread only, so a device is never released under a running read.

    Args:
        source: where frames come from; owned by this thread from `start` on.
        mailbox: where they go; its end-of-stream and errors come from here.
        stop_event: set it to stop every thread that shares it.
        running: cleared while the source is paused: a live one is read on and its frames are counted as
            "paused", a file waits.
        paced: play a file at its own frame rate, as a camera would deliver it; None: with policy "newest".

    Attributes:
        decoded: frames read so far.
        started_s: monotonic time of the start.
        heard_s: monotonic time of the latest frame, or of the start.
        gaps: indices of frames that came after a second of silence, or of unreadable frames, oldest first.
    """

    def __init__(
        self,
        source: Source,
        mailbox: Mailbox,
        stop_event: threading.Event | None = None,
        *,
        running: threading.Event | None = None,
        paced: bool | None = None,
    ) -> None:
        super().__init__(name=f"capture-{source.name}", daemon=True)
        self.source = source
        self.mailbox = mailbox
        self.stop_event = stop_event if stop_event is not None else threading.Event()
        self.decoded = 0
        self.started_s = self.heard_s = time.monotonic()
        self.gaps: deque[int] = deque(maxlen=64)
        self._running = running
        self._paced = (mailbox.policy == "newest" if paced is None else paced) and not source.live
        self._unwanted: dict[str, int] = {}
        self._counting = threading.Lock()
        self._wanted_s = self.heard_s
        self._interval_s = 0.0
        self._next_index = 0
        self._zero_s: float | None = None

    @property
    def captured(self) -> int:
        """Frames the source had: those read and those it lost itself."""
        return self.decoded + sum(dict(self.source.dropped).values())

    @property
    def dropped(self) -> dict[str, int]:
        """Frames lost in the source, on the way and in the mailbox, by cause."""
        total = dict(self.source.dropped)
        for counts in (dict(self._unwanted), dict(self.mailbox.dropped)):
            for cause, frames in counts.items():
                total[cause] = total.get(cause, 0) + frames
        return total

    @property
    def silence_limit_s(self) -> float:
        """Longest wait for a frame that is no gap."""
        return max(SILENCE_S, 3.0 * self._interval_s)

    def count_drop(self, cause: str, frames: int = 1) -> None:
        """Count frames that were read and are not wanted; any thread may."""
        if frames:
            with self._counting:
                self._unwanted[cause] = self._unwanted.get(cause, 0) + frames

    def abandon(self) -> None:
        """Ask for the end without waiting: nothing more comes out of the mailbox than is in it."""
        self.stop_event.set()
        self.mailbox.close()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Ask for the end and wait for it; False when a read still blocks.

        The thread is then left behind, and the exit of the process waits `EXIT_PATIENCE_S` for it at most.
        """
        self.abandon()
        if self.ident is None:
            self.source.close()
            return True
        self.join(timeout_s)
        if self.is_alive():
            atexit.register(self.join, EXIT_PATIENCE_S)
            return False
        return True

    def run(self) -> None:
        try:
            self._pump()
        except EngineError as error:
            self.mailbox.fail(_without_frames(error))
        except Exception as error:
            line = " ".join(str(error).split()) or "no message"
            failure = SourceError(f"source '{self.source.name}' failed: {type(error).__name__}: {line}")
            failure.__cause__ = error
            self.mailbox.fail(_without_frames(failure))
        finally:
            self.mailbox.close()
            self.source.close()

    def _pump(self) -> None:
        period_s = 1.0 / (self.source.fps or _FALLBACK_FPS) if self._paced and not self.source.timed else 0.0
        self.started_s = self.heard_s = self._wanted_s = due_s = time.monotonic()
        while not self.stop_event.is_set():
            if self._hold():
                due_s = time.monotonic()
            if self._paced and self.stop_event.wait(max(0.0, due_s - time.monotonic())):
                return
            due_s += period_s
            frame = self.source.read()
            if frame is None or (self._paced and self.source.timed and not self._await(frame)):
                return
            self.decoded += 1
            self.heard_s = time.monotonic()
            if self._running is not None and self.source.live and not self._running.is_set():
                self.count_drop("paused")
                continue
            self._note_gap(frame)
            if not self.mailbox.put(frame):
                self.count_drop("stopped")
                return

    def _await(self, frame: Frame) -> bool:
        """Wait until a recorded frame is due; False when the thread is to end."""
        pts_s = (frame.pts_ns or 0) / 1e9
        if self._zero_s is None:
            self._zero_s = time.monotonic() - pts_s
        return not self.stop_event.wait(max(0.0, self._zero_s + pts_s - time.monotonic()))

    def _hold(self) -> bool:
        """Wait while a file is paused; True when it was."""
        if self._running is None or self.source.live or self._running.is_set():
            return False
        while not self.stop_event.is_set() and not self._running.wait(0.1):
            pass
        self._zero_s = None
        return True

    def _note_gap(self, frame: Frame) -> None:
        """Remember the frame if nothing of the second before it was seen."""
        # A recording is silent where its times say so, however fast it is played.
        timed, index = self.source.timed, frame.index
        now_s = (frame.pts_ns or 0) / 1e9 if timed else self.heard_s
        passed_s, lost = now_s - self._wanted_s, index - self._next_index
        if self.decoded > 1 and (
            ((self.source.live or timed) and passed_s > self.silence_limit_s)
            or lost > SILENCE_S * (self.source.fps or _FALLBACK_FPS)
        ):
            self.gaps.append(index)
        if self.decoded > 1:
            # A slow sender has no gaps; one long silence must not hide the next.
            self._interval_s = min(passed_s, 10.0 * SILENCE_S)
        self._wanted_s, self._next_index = now_s, index + 1


def _without_frames(error: BaseException) -> BaseException:
    """`error` without its traceback, which would keep the thread, its source and its newest picture alive.

    They hold the error in turn: a ring that is let go of by a full garbage collection only, and in an engine at work
    hundreds of connections fail before there is one.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
