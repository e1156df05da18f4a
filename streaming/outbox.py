"""The hand-over between the engine thread and the publisher thread: bounded, newest wins."""

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from streaming.clock import CLOCK

Encode = Callable[[int, int], list[bytes]]
"""Makes message parts from (seq, t_publish_ns)."""


@dataclass(slots=True)
class Outgoing:
    """A message on its way; encoded on the first `parts()`, that is, when somebody wants it.

    Attributes:
        ends: True for an end-of-stream.
    """

    topic: bytes
    seq: int
    t_publish_ns: int
    encode: Encode
    ends: bool = False
    _parts: list[bytes] | None = None

    def parts(self) -> list[bytes]:
        """Message parts, the same bytes on every call."""
        if self._parts is None:
            self._parts = self.encode(self.seq, self.t_publish_ns)
        return self._parts


class Outbox:
    """Messages in the order they were put; a topic with `size` waiting loses its oldest one.

    seq is given here, not when sending, so that readers see a gap for what was dropped.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._queue: deque[Outgoing] = deque()
        self._waiting: Counter[bytes] = Counter()
        self._sequence: Counter[bytes] = Counter()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, topic: bytes, encode: Encode, *, ends: bool = False) -> None:
        """Append a message without ever waiting for room."""
        with self._lock:
            item = Outgoing(topic, self._sequence[topic], CLOCK.now_ns(), encode, ends)
            self._sequence[topic] += 1
            if self._waiting[topic] == self._size:
                oldest = next(i for i, waiting in enumerate(self._queue) if waiting.topic == topic)
                del self._queue[oldest]
                self.dropped += 1
            else:
                self._waiting[topic] += 1
            self._queue.append(item)

    def take(self) -> Outgoing | None:
        """Remove and return the oldest message, None when there is none."""
        with self._lock:
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._waiting[item.topic] -= 1
            return item
