"""The system clock is set while the engine runs: stamps go on, ages stay true, no source is given up."""

import itertools
import threading
import time
from pathlib import Path

import pytest

import streaming.clock
from engine.config import EngineConfig
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from streaming.clock import CLOCK, StampClock
from streaming.engine_thread import FrameDone
from streaming.feed import Feed, Timeouts
from streaming.lane import Lane
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.session import Session
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber
from tests.streaming.scenes import eventually

HOUR_NS = 3_600_000_000_000


class SystemClock:
    """Stands in for the machine's clock and can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = time.time_ns
        self.ahead_ns = 0
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.ahead_ns)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SystemClock:
    return SystemClock(monkeypatch)


def test_stamps_are_system_time(system: SystemClock) -> None:
    clock = StampClock()
    assert abs(clock.now_ns() - time.time_ns()) < HOUR_NS / 100
    stamps = [clock.now_ns() for _ in range(1000)]
    assert stamps == sorted(stamps)


def test_a_clock_set_back_does_not_take_stamps_back(system: SystemClock, caplog: pytest.LogCaptureFixture) -> None:
    clock = StampClock()
    before_ns = clock.now_ns()
    for _ in range(3):
        system.ahead_ns -= HOUR_NS
        after_ns = clock.now_ns()
        assert before_ns <= after_ns < before_ns + HOUR_NS / 10
        assert 0 <= clock.age_ns(before_ns) < HOUR_NS / 10
        before_ns = after_ns
    assert len(caplog.messages) == 1
    assert "set back by 3600." in caplog.messages[0]
    # Right again: nothing was left behind.
    system.ahead_ns = 0
    assert abs(clock.now_ns() - time.time_ns()) < HOUR_NS / 100


def test_a_clock_set_forward_is_followed_and_nothing_is_older_for_it(
    system: SystemClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StampClock()
    before_ns = clock.now_ns()
    system.ahead_ns += HOUR_NS
    assert clock.now_ns() - before_ns >= HOUR_NS
    assert 0 <= clock.age_ns(before_ns) < HOUR_NS / 10
    assert 0 <= clock.age_ns(clock.now_ns()) < HOUR_NS / 10
    assert len(caplog.messages) == 1
    assert "set forward by 3600." in caplog.messages[0]


def test_what_another_machine_stamps_in_the_future_has_no_negative_age() -> None:
    assert CLOCK.age_ns(CLOCK.now_ns() + HOUR_NS) == 0


def test_an_engine_whose_clock_is_set_goes_on(
    motion_model: Path, system: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StampClock()
    for name in ("now_ns", "age_ns"):
        monkeypatch.setattr(streaming.clock.CLOCK, name, getattr(clock, name))
    network = Network(motion_model)
    uri = "demo://?live=1&frames=0&fps=20&size=64x64&objects=2"
    feeds = [
        Feed(open_source(f"{uri}&seed={seed}", name=f"cam{seed}"), every=False, timeouts=Timeouts(20.0, 30.0))
        for seed in (1, 2)
    ]
    lanes = [Lane(feed, Pipeline(EngineConfig(), network)) for feed in feeds]
    done: list[FrameDone] = []
    with (
        Publisher("tcp://127.0.0.1:0", queue_size=1000, send_hwm=1000) as publisher,
        MaskSubscriber(publisher.endpoint, kind="provisional", every=True, queue_size=10_000) as masks,
    ):
        assert publisher.wait_for_subscriber(60)
        session = Session(lanes, Report({"generation": 1}), publisher=publisher)
        session.observe(done.append)
        thread = threading.Thread(target=session.run)
        thread.start()
        try:
            for ahead_ns in (-HOUR_NS, 0, HOUR_NS, -2 * HOUR_NS, HOUR_NS):
                system.ahead_ns = ahead_ns
                goal = 4 + max(lane.frames for lane in lanes)
                assert eventually(lambda goal=goal: min(lane.frames for lane in lanes) >= goal)
                statuses = session.sources()
                assert all(0 <= status.age_ms < HOUR_NS / 1e6 / 10 for status in statuses if status.age_ms is not None)
        finally:
            session.stop()
            thread.join(60)
        assert not thread.is_alive()
        publisher.close(60)
        messages = list(masks)
    assert all(feed.reconnects == 0 for feed in feeds)
    for lane in lanes:
        stamps = [item.frame.t_capture_ns for item in done if item.lane == lane.name]
        assert len(stamps) >= 20
        assert all(later > earlier for earlier, later in itertools.pairwise(stamps))
        told = [message for message in messages if message.source == lane.name]
        assert len(told) == lane.frames
        assert all(message.t_publish_ns >= message.t_capture_ns for message in told)
    assert all(0 <= item.age_ms < HOUR_NS / 1e6 / 10 for item in done)
