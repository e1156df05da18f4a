"""The hand-over of frames between a capture thread and the engine thread."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from engine.frame import Frame

Policy = Literal["newest", "every"]


class Mailbox:
    """A slot or a queue between one producer and one consumer thread.

    Args:
        policy: "newest" keeps one frame and counts the ones it replaces as "superseded"; "every" is a queue.
        size: capacity of the queue with policy "every".
        live: what a full queue does. False: `put` waits (a file can). True: the oldest frame is
            dropped and counted as "queue_full" (a camera cannot wait).
        on_change: called, without the lock, after a frame has come in or the stream has ended.

    Attributes:
        dropped: frames lost here, by cause.
    """

    def __init__(
        self,
        policy: Policy = "newest",
        size: int = 8,
        *,
        live: bool = False,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        if policy not in ("newest", "every"):
            raise ValueError(f"unknown policy '{policy}'; use 'newest' or 'every'")
        if size < 1:
            raise ValueError(f"a mailbox needs room for at least 1 frame, not {size}")
        self.policy: Policy = policy
        self.size = 1 if policy == "newest" else size
        self.dropped: dict[str, int] = {}
        self._cause_when_full = "superseded" if policy == "newest" else "queue_full"
        self._waits_when_full = policy == "every" and not live
        self._wakeup = threading.Condition()
        self._frames: deque[Frame] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._on_change = on_change

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; return False (frame not taken) once the mailbox is closed."""
        with self._wakeup:
            if self._waits_when_full:
                self._wakeup.wait_for(lambda: self._closed or len(self._frames) < self.size)
            if self._closed:
                return False
            if len(self._frames) >= self.size:
                self._frames.popleft()
                self.dropped[self._cause_when_full] = self.dropped.get(self._cause_when_full, 0) + 1
            self._frames.append(frame)
            self._wakeup.notify_all()
        self._tell()
        return True

    def get(self, timeout_s: float | None = None) -> Frame | None:
        """Return the next frame; None after `timeout_s` (None waits forever) or when `finished`.

        Raises:
            the error given to `fail`, once the frames put before it are taken.
        """
        with self._wakeup:
            self._wakeup.wait_for(lambda: self.ready, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self._wakeup.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """End the stream: waiting calls return, frames already inside can still be taken."""
        with self._wakeup:
            self._closed = True
            self._wakeup.notify_all()
        self._tell()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error that `get` raises to the consumer."""
        with self._wakeup:
            if not self._closed:
                self._error = error
            self._closed = True
            self._wakeup.notify_all()
        self._tell()

    def drain(self) -> int:
        """Throw away the frames inside; returns how many, for the caller to count."""
        with self._wakeup:
            count = len(self._frames)
            self._frames.clear()
            self._wakeup.notify_all()
            return count

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes in."""
        return self._closed

    @property
    def over(self) -> bool:
        """Whether the stream ended, well or not, and every frame was taken."""
        return self._closed and not self._frames

    @property
    def error(self) -> BaseException | None:
        """What was given to `fail`."""
        return self._error

    @property
    def ready(self) -> bool:
        """Whether `get` would return or raise at once."""
        return bool(self._frames) or self._closed

    @property
    def finished(self) -> bool:
        """Whether the stream ended well and every frame was taken; after `fail` the next `get` raises."""
        return self._closed and not self._frames and self._error is None

    def __len__(self) -> int:
        return len(self._frames)
