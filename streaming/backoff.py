"""How long to wait between attempts to reach something that is gone."""

import random


class Backoff:
    """Waits that double from `first_s` to `limit_s`, each shortened at random by up to a half.

    Without the chance part, everything that lost the same server would come back at the same moment.

    Args:
        first_s: longest first wait.
        limit_s: longest wait at all.
        rng: source of chance.

    Attributes:
        attempts: waits handed out since the last `reset`.
    """

    def __init__(self, first_s: float = 0.25, limit_s: float = 5.0, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._rng = rng or random.Random()
        self.attempts = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        longest_s = min(self._limit_s, self._first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return longest_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: the next wait is a short one again."""
        self.attempts = 0
