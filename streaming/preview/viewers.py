"""Who is watching which source; a viewer that stops asking is gone."""

import threading
import time
from collections.abc import Callable

MOST_VIEWERS = 8
"""Each costs a thread and the engine's machine some bytes per frame; a robot's page is no broadcast."""

ABSENT_AFTER_S = 3.0
"""A page asks about ten times per second, and at least once per second when nothing moves."""


class Viewers:
    """The viewers of the last few seconds.

    Args:
        clock_s: monotonic seconds.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, str]] = {}
        self._watched: frozenset[str] = frozenset()

    def admit(self, viewer: str, source: str) -> bool:
        """Note that `viewer` asks for `source`; False when too many others watch."""
        with self._lock:
            self._expire()
            if viewer not in self._seen and len(self._seen) >= MOST_VIEWERS:
                return False
            self._seen[viewer] = (self._clock_s(), source)
            self._watched = frozenset(name for _, name in self._seen.values())
            return True

    def watched(self) -> frozenset[str]:
        """Names of the sources somebody watches."""
        if not self._watched:
            return self._watched  # the usual case on a robot, without a lock
        with self._lock:
            self._expire()
            return self._watched

    def count(self) -> int:
        """How many watch."""
        with self._lock:
            self._expire()
            return len(self._seen)

    def _expire(self) -> None:
        limit_s = self._clock_s() - ABSENT_AFTER_S
        gone = [viewer for viewer, (seen_s, _) in self._seen.items() if seen_s < limit_s]
        for viewer in gone:
            del self._seen[viewer]
        if gone:
            self._watched = frozenset(name for _, name in self._seen.values())
