"""One thread per source: decodes everything and puts it into a mailbox."""

import atexit
import threading
import time

from engine.errors import EngineError, SourceError
from streaming.mailbox import Mailbox
from streaming.sources.base import Source

# A native read that returns while the interpreter shuts down aborts the process.
EXIT_PATIENCE_S = 5.0


class CaptureThread(threading.Thread):
    """Reads a source until it ends, fails or is stopped, and closes it.

    A file read with policy "newest" is played at its own frame rate, as a camera would deliver it.
    The source is closed by this thread only, so a device is never released under a running read.

    Args:
        source: where frames come from; owned by this thread from `start` on.
        mailbox: where they go; its end-of-stream and errors come from here.
        stop_event: set it to stop every thread that shares it.

    Attributes:
        decoded: frames read so far.
    """

    def __init__(self, source: Source, mailbox: Mailbox, stop_event: threading.Event | None = None) -> None:
        super().__init__(name=f"capture-{source.name}", daemon=True)
        self.source = source
        self.mailbox = mailbox
        self.stop_event = stop_event if stop_event is not None else threading.Event()
        self.decoded = 0

    @property
    def dropped(self) -> dict[str, int]:
        """Frames lost in the source and in the mailbox, by cause."""
        total = dict(self.source.dropped)
        for cause, frames in dict(self.mailbox.dropped).items():
            total[cause] = total.get(cause, 0) + frames
        return total

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Ask for the end and wait for it; False when a read still blocks.

        The thread is then left behind, and the exit of the process waits `EXIT_PATIENCE_S` for it at most.
        """
        self.stop_event.set()
        self.mailbox.close()
        self.join(timeout_s)
        if self.is_alive():
            atexit.register(self.join, EXIT_PATIENCE_S)
            return False
        return True

    def run(self) -> None:
        try:
            self._pump()
        except EngineError as error:
            self.mailbox.fail(error)
        except Exception as error:
            line = " ".join(str(error).split()) or "no message"
            failure = SourceError(f"source '{self.source.name}' failed: {type(error).__name__}: {line}")
            failure.__cause__ = error
            self.mailbox.fail(failure)
        finally:
            self.mailbox.close()
            self.source.close()

    def _pump(self) -> None:
        plays_in_real_time = self.mailbox.policy == "newest" and not self.source.live
        period_s = 1.0 / (self.source.fps or 30.0) if plays_in_real_time else 0.0
        due_s = time.monotonic()
        while not self.stop_event.is_set():
            if plays_in_real_time and self.stop_event.wait(max(0.0, due_s - time.monotonic())):
                return
            due_s += period_s
            frame = self.source.read()
            if frame is None:
                return
            self.decoded += 1
            if not self.mailbox.put(frame):
                return
