"""A source comes back, and says how it is; scripted sources, real threads."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from engine.errors import SourceError
from engine.frame import Frame
from streaming.backoff import Backoff
from streaming.feed import Break, Feed, Timeouts
from streaming.sources.base import Source
from streaming.sources.deferred import DeferredSource
from streaming.watchdog import Watchdog

PATIENCE_S = 60.0
SECRET = "rtsp://user:hunter2@camera/stream"


class Scripted(Source):
    """Frames at 100 Hz; `script(index)` may sleep, raise, or return True for the end."""

    live = True

    def __init__(self, script: Callable[[int], object] = lambda index: None, *, live: bool = True) -> None:
        super().__init__(SECRET, "cam")
        self.live = live
        self._script = script
        self._index = 0
        self.closed = threading.Event()

    def read(self) -> Frame | None:
        if self.live:
            time.sleep(0.01)
        if self._script(self._index) is True or self.closed.is_set():
            return None
        self._index += 1
        return Frame(np.zeros((2, 2, 3), np.uint8), self._index - 1, time.time_ns(), self.name)

    def close(self) -> None:
        self.closed.set()


class Follower:
    """Takes everything a feed has."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.taken: list[tuple[int, Break]] = []
        self.states: list[str] = []
        self._stop = threading.Event()
        feed.on_state = self.states.append
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            item = self.feed.take()
            if item is None:
                self._stop.wait(0.002)
                continue
            self.taken.append((item[0].index, item[1]))

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, f"{self.taken[-3:]} {self.states} {self.feed.problem}"
            time.sleep(0.005)

    def wait_for_state(self, state: str) -> None:
        self.wait(lambda: self.feed.state == state)

    @property
    def breaks(self) -> list[Break]:
        return [before for _, before in self.taken if before != "none"]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def following(feed: Feed) -> Iterator[Follower]:
    follower, watchdog = Follower(feed), Watchdog(lambda: [feed])
    feed.start()
    watchdog.start()
    follower.start()
    try:
        yield follower
    finally:
        watchdog.stop()
        feed.stop()
        follower.stop()


def quick(rng: random.Random | None = None) -> Backoff:
    return Backoff(0.02, 0.1, rng)


def ends_at(count: int) -> Callable[[int], bool]:
    return lambda index: index == count


def test_a_lost_connection_is_made_again_and_the_index_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unseen.source")
    sources = iter([Scripted(ends_at(5)), Scripted()])
    feed = Feed(next(sources), every=True, reopen=lambda: next(sources), backoff=quick())
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) > 12)
        follower.wait_for_state("live")
    indices = [index for index, _ in follower.taken]
    assert indices == list(range(len(indices)))
    assert follower.taken[5] == (5, "new")
    assert follower.breaks == ["new"]
    assert [state for state in follower.states if state != "stalled"] == ["reconnecting", "live"]
    assert feed.reconnects == 1
    lines = [line for line in (record.getMessage() for record in caplog.records) if "reconnecting" in line]
    assert len(lines) == 2  # one per change
    assert re.match(r"source=cam state=reconnecting was=(live|stalled) attempt=1 retry_in_s=", lines[0])
    assert 'frames=5 reason="the sender closed it after 5 frames"' in lines[0]
    assert lines[1].startswith("source=cam state=live was=reconnecting frames=")


def test_an_error_of_a_live_source_is_a_reason_to_try_again_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def unplugged(index: int) -> None:
        if index == 3:
            raise SourceError(f"'{SECRET}' is gone")

    refused = [True, True, False]

    def reopen() -> Source:
        if refused.pop(0):
            raise SourceError(f"cannot open {SECRET}")
        return Scripted()

    feed = Feed(Scripted(unplugged), every=True, reopen=reopen, backoff=quick())
    with following(feed) as follower:
        follower.wait_for_state("reconnecting")
        assert "hunter2" not in feed.problem
        assert "user:***@camera" in feed.problem
        assert "hunter2" not in feed.uri
        follower.wait(lambda: len(follower.taken) > 6)
        follower.wait_for_state("live")
    assert refused == []
    assert "hunter2" not in caplog.text
    assert feed.reconnects == 1
    assert feed.problem == ""


def test_a_read_that_never_returns_is_left_behind() -> None:
    unblock = threading.Event()
    hung = Scripted(lambda index: unblock.wait(PATIENCE_S) if index == 4 else None)
    feed = Feed(hung, every=True, reopen=Scripted, timeouts=Timeouts(0.1, 1.0), backoff=quick())
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) > 8)
        assert follower.states[:2] == ["stalled", "reconnecting"]
        assert follower.taken[4][1] == "new"
        assert not hung.closed.is_set()  # never closed under a running read
        unblock.set()
        assert hung.closed.wait(PATIENCE_S)


def test_a_device_that_hangs_for_good_costs_two_threads_and_no_more() -> None:
    unblock = threading.Event()
    opened: list[Source] = []

    def reopen() -> Source:
        opened.append(Scripted(lambda index: unblock.wait(PATIENCE_S)))
        return opened[-1]

    feed = Feed(reopen(), every=True, reopen=reopen, timeouts=Timeouts(0.05, 0.05), backoff=quick())
    now_s = time.monotonic()
    feed.start()
    # The watchdog's clock is turned on by hand: a minute of a camera that hangs.
    for tick in range(600):
        feed.watch(now_s + tick / 10)
        time.sleep(0.001)
    assert len(opened) == 2
    assert feed.state == "reconnecting"
    unblock.set()
    assert feed.stop()


def test_a_silence_is_a_gap_and_told_while_it_lasts() -> None:
    feed = Feed(Scripted(lambda index: time.sleep(1.3) if index == 6 else None), every=True, reopen=Scripted)
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) > 10)
        follower.wait_for_state("live")
    # Nothing is lost, and a busy machine may be silent at other times too.
    assert follower.taken[6] == (6, "gap")
    assert set(follower.breaks) == {"gap"}
    assert follower.states[:2] == ["stalled", "live"]
    assert "reconnecting" not in follower.states


def test_a_slow_camera_has_no_gaps() -> None:
    feed = Feed(Scripted(lambda index: time.sleep(1.1) if index else None), every=True, reopen=Scripted)
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) == 3)
    assert follower.breaks in ([], ["gap"])  # before the second frame nobody can know that it is slow


@pytest.mark.parametrize("live", [True, False])
def test_what_has_an_end_ends(live: bool) -> None:
    source = Scripted(ends_at(5), live=live)
    if live:
        source.frame_count = 5
    feed = Feed(source, every=True, reopen=Scripted)
    with following(feed) as follower:
        follower.wait(lambda: feed.over and len(follower.taken) == 5)
        feed.end()
    assert feed.state == "ended"
    assert feed.error is None
    assert feed.captured == 5
    assert feed.dropped == {}


def test_a_source_that_is_dead_at_the_start_is_awaited() -> None:
    refused = [True] * 3

    def opener() -> Source:
        if refused:
            refused.pop()
            raise SourceError("refused")
        return Scripted()

    feed = Feed(DeferredSource(SECRET, "cam", opener), every=True, reopen=opener, backoff=quick())
    assert feed.state == "reconnecting"
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) > 3)
        follower.wait_for_state("live")
    assert follower.taken[0][0] == 0


def test_frames_of_a_paused_camera_are_counted_and_those_of_a_file_wait() -> None:
    camera = Feed(Scripted(), every=False)
    with following(camera) as follower:
        follower.wait(lambda: len(follower.taken) > 2)
        camera.pause()
        count = len(follower.taken)
        captured = camera.captured
        follower.wait(lambda: camera.captured >= captured + 20)
        assert len(follower.taken) <= count + 1
        camera.resume()
        follower.wait(lambda: len(follower.taken) > count + 3)
    assert camera.dropped["paused"] >= 20
    assert camera.captured == len(follower.taken) + sum(camera.dropped.values())

    file = Feed(Scripted(ends_at(40), live=False), every=True)
    file.pause()
    with following(file) as follower:
        time.sleep(0.05)
        assert follower.taken == []
        file.resume()
        follower.wait(lambda: len(follower.taken) == 40)
    assert file.dropped == {}


def test_every_frame_is_taken_or_counted_whatever_happens() -> None:
    rng = random.Random(3)

    def trouble(index: int) -> object:
        chance = rng.random()
        if chance < 0.05:
            raise SourceError("cable")
        return chance > 0.95

    feed = Feed(Scripted(trouble), every=False, reopen=lambda: Scripted(trouble), backoff=quick(rng))
    with following(feed) as follower:
        follower.wait(lambda: len(follower.taken) > 60)
    indices = [index for index, _ in follower.taken]
    assert indices == sorted(set(indices))
    assert feed.captured == len(indices) + sum(feed.dropped.values())
    assert feed.reconnects > 1


def test_waits_double_and_differ() -> None:
    backoff = Backoff(0.25, 5.0, random.Random(1))
    waits_s = [backoff.next_s() for _ in range(10)]
    for attempt, wait_s in enumerate(waits_s):
        longest_s = min(5.0, 0.25 * 2**attempt)
        assert longest_s / 2 <= wait_s <= longest_s
    assert len(set(waits_s[5:])) == 5
    backoff.reset()
    assert backoff.next_s() <= 0.25
