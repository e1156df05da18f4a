"""Looks after the sources from outside their threads, so that none that hangs goes unnoticed."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from streaming.feed import Feed

_log = logging.getLogger("unseen.source")

PERIOD_S = 0.05
"""Between two looks: well below what a state change may take to be told."""


class Watchdog:
    """A thread that calls `Feed.watch` on every feed.

    Args:
        feeds: called at every look, so that sources may come and go.
    """

    def __init__(self, feeds: Callable[[], Iterable[Feed]]) -> None:
        self._feeds = feeds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            for feed in self._feeds():
                try:
                    feed.watch(time.monotonic())
                except Exception:
                    # One that cannot be looked after must not leave the others alone.
                    _log.exception("source=%s event=watchdog_failed", feed.name)
