"""Unix time for stamps and ages, which never goes back: system clocks are set, by people and by time servers."""

import logging
import threading
import time

_log = logging.getLogger("unseen.clock")

_STEP_NS = 20_000_000
"""What lies between the clocks beyond this is a step; time servers correct less than that by running faster."""

_TOGETHER_NS = 5_000
"""Two clocks read within this are read at the same time; a busy machine may pause in between."""

_LOOKS = 50
"""Of which the best one counts, where none was that quick."""


class StampClock:
    """System time when it began, plus what has passed since.

    Where the system clock is set forward, stamps follow: a robot that learns the date after its start has the right
    one from then on. Where it is set back, they go on: no stream's stamps repeat, and no age is negative.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_ns = self._measure_ns()
        self._step_ns = 0
        self._stepped_at_ns = 0
        self._is_ahead = False

    def now_ns(self) -> int:
        """Unix time in nanoseconds, not before any answer given earlier."""
        with self._lock:
            passed_ns = time.monotonic_ns()
            if abs(time.time_ns() - passed_ns - self._offset_ns) > _STEP_NS or self._is_ahead:
                self._look()
                passed_ns = time.monotonic_ns()
            return passed_ns + self._offset_ns

    def age_ns(self, stamp_ns: int) -> int:
        """Time passed since a stamp of this clock, without what the system clock was set forward since; never negative.

        A stamp of another machine's clock that lies in the future has age 0.
        """
        now_ns = self.now_ns()
        age_ns = now_ns - stamp_ns
        if stamp_ns < self._stepped_at_ns and age_ns >= self._step_ns:
            age_ns -= self._step_ns
        return max(0, age_ns)

    def _look(self) -> None:
        """Follow a step forward, tell one back; the lock is held."""
        step_ns = self._measure_ns() - self._offset_ns
        if step_ns > _STEP_NS:
            self._offset_ns += step_ns
            self._step_ns, self._stepped_at_ns = step_ns, time.monotonic_ns() + self._offset_ns
            _log.warning("the system clock was set forward by %.3f s: stamps follow", step_ns / 1e9)
        elif step_ns < -_STEP_NS and not self._is_ahead:
            _log.warning("the system clock was set back by %.3f s: stamps go on from where they were", -step_ns / 1e9)
        self._is_ahead = step_ns < -_STEP_NS

    @staticmethod
    def _measure_ns() -> int:
        """System time minus monotonic time."""
        looks: list[tuple[int, int]] = []
        while len(looks) < _LOOKS and (not looks or looks[-1][0] > _TOGETHER_NS):
            before_ns = time.monotonic_ns()
            system_ns = time.time_ns()
            took_ns = time.monotonic_ns() - before_ns
            looks.append((took_ns, system_ns - before_ns - took_ns // 2))
        return min(looks)[1]


CLOCK = StampClock()
"""Of this process: stamps of one clock can be compared."""
