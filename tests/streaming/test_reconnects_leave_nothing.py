"""Hundreds of connections to a real camera leave no object, thread or socket behind."""

import gc
import os
import threading
import time
import weakref
from collections import Counter
from typing import ClassVar

import numpy as np

from benchmarks.fault_server import MjpegServer
from engine.errors import SourceError
from engine.frame import Frame
from streaming.backoff import Backoff
from streaming.capture import CaptureThread
from streaming.feed import Feed, Timeouts
from streaming.mailbox import Mailbox
from streaming.sources.base import Source
from streaming.sources.deferred import DeferredSource
from streaming.sources.network import NetworkSource

_PATIENCE_S = 60.0
_FIRST, _LAST = 5, 45
"""Connections until everything that is made once is made, and in all."""


class Held:
    """What this process has of everything a connection is made of."""

    def __init__(self) -> None:
        gc.collect()
        kinds = (CaptureThread, Mailbox, DeferredSource, NetworkSource)
        self.objects = Counter(type(item).__name__ for item in gc.get_objects() if isinstance(item, kinds))
        self.threads = threading.active_count()
        self.files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def reconnected(feed: Feed, server: MjpegServer, times: int) -> Held:
    """Cut connections, refuse some, until there were so many; what is held once the newest one delivers again."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while feed.reconnects < times or feed.state != "live":
        assert time.monotonic() < deadline_s, f"{feed.reconnects} of {times} reconnects: {feed.state} {feed.problem}"
        feed.watch(time.monotonic())
        if feed.take() is None:
            time.sleep(0.001)
        elif feed.reconnects < times and feed.state == "live":
            if feed.reconnects % 8 == 7:
                server.kill()
                server.start()
            else:
                server.cut_mid_frame()
    return Held()


def test_a_connection_that_is_lost_is_let_go_of() -> None:
    server = MjpegServer(fps=200.0)

    def connect() -> NetworkSource:
        return NetworkSource(server.uri, name="cam", open_timeout_s=5.0, read_timeout_s=5.0)

    backoff = Backoff(first_s=0.001, limit_s=0.001)
    feed = Feed(
        DeferredSource(server.uri, "cam", connect), every=False, reopen=connect, timeouts=Timeouts(), backoff=backoff
    )
    feed.start()
    try:
        first = reconnected(feed, server, _FIRST)
        last = reconnected(feed, server, _LAST)
    finally:
        assert feed.stop(_PATIENCE_S)
        server.close()
    assert feed.captured >= _LAST
    # One connection at work, and one that may not have noticed yet that it was cut.
    assert all(count <= first.objects[kind] + 1 for kind, count in last.objects.items()), (first.objects, last.objects)
    assert last.threads <= first.threads + 2  # ours and the server's
    assert last.files <= first.files + 4


class Failing(Source):
    """A live source that fails at its second frame."""

    live = True
    made: ClassVar[list["weakref.ref[Failing]"]] = []

    def __init__(self) -> None:
        super().__init__("http://camera", "cam")
        self.made.append(weakref.ref(self))
        self._frames = [Frame(np.zeros((8, 8, 3), np.uint8), 0, time.time_ns(), self.name)]

    def read(self) -> Frame | None:
        if self._frames:
            return self._frames.pop()
        try:
            raise OSError("unplugged")
        except OSError as error:
            raise SourceError("gone") from error

    def close(self) -> None: ...


def test_a_connection_that_failed_is_let_go_of_without_a_garbage_collection() -> None:
    gc.collect()
    gc.disable()  # a full collection is minutes away in an engine at work
    try:
        feed = Feed(Failing(), every=False, reopen=Failing, backoff=Backoff(first_s=0.001, limit_s=0.001))
        feed.start()
        deadline_s = time.monotonic() + _PATIENCE_S
        while len(Failing.made) < 20:
            assert time.monotonic() < deadline_s, (len(Failing.made), feed.state, feed.problem)
            feed.watch(time.monotonic())
            feed.take()
            time.sleep(0.001)
        assert feed.stop(_PATIENCE_S)
        # The newest one, the one before it, and one whose thread may just be ending.
        assert sum(source() is not None for source in Failing.made) <= 3
    finally:
        gc.enable()
