"""A sink behind its queue: files wait for it, cameras never do, and a disk that hangs keeps nobody from ending."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.errors import StoreError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.feed import Feed
from streaming.lane import Lane
from streaming.report import Report
from streaming.session import Session
from streaming.sinks import background
from streaming.sinks.background import BackgroundSink
from streaming.sources import open_source
from tests.streaming.scenes import eventually, make_scene

PATIENCE_S = 60.0


class Disk:
    """Takes what it is given once `works` is set; fails instead while `problem` is."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = threading.Event()
        if works:
            self.works.set()
        self.problem: Exception | None = None
        self.frames: list[int] = []
        self.finals: list[int] = []
        self.closed = False

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        assert self.works.wait(PATIENCE_S)
        if self.problem is not None:
            raise self.problem
        self.frames += [frame.index] if frame is not None else []
        self.finals += [scene.frame_index for scene in scenes]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [Frame(np.zeros((4, 4, 3), np.uint8), index, 0, "cam") for index in range(200)]


def in_time(action: Callable[[], object]) -> None:
    """Do it in a thread that is not waited for longer than a minute."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it hangs"


def test_a_file_waits_for_the_disk_and_loses_nothing(frames: list[Frame]) -> None:
    disk = Disk()
    sink = BackgroundSink(disk, wait=True, size=2)
    for item in frames:
        sink.step(item, [make_scene(item.index)])
    sink.close()
    sink.close()
    assert disk.frames == disk.finals == list(range(len(frames)))
    assert disk.closed
    assert sink.dropped == 0


def test_a_camera_waits_for_no_disk_and_its_last_finals_still_find_room(frames: list[Frame]) -> None:
    disk = Disk(works=False)
    sink = BackgroundSink(disk, wait=False, size=4)

    def feed() -> None:
        for item in frames[:50]:
            sink.step(item, [])
        for index in range(200):
            sink.step(None, [make_scene(index)])

    in_time(feed)
    dropped = sink.dropped
    disk.works.set()
    sink.close()
    assert 44 <= dropped <= 46  # four wait, one may be at work
    assert len(disk.frames) == 50 - dropped
    assert len(disk.finals) >= 30


def test_a_file_gives_a_disk_that_hangs_up_in_time_and_goes_on_once_it_is_back(
    frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(works=False)
    sink = BackgroundSink(disk, wait=True, size=4, name="--mcap a.mcap", patience_s=0.2)

    def feed() -> None:
        for item in frames[:50]:
            sink.step(item, [])

    in_time(feed)
    assert [line for line in caplog.messages if "--mcap a.mcap: took nothing for 0 s" in line] == caplog.messages
    assert len(caplog.messages) == 1
    assert sink.dropped > 40
    disk.works.set()
    assert eventually(lambda: len(disk.frames) == 50 - sink.dropped)
    for item in frames[50:]:
        sink.step(item, [])
    sink.close()
    assert disk.frames[-150:] == list(range(50, 200))


def test_closing_does_not_wait_for_a_disk_that_hangs(frames: list[Frame]) -> None:
    disk = Disk(works=False)
    sink = BackgroundSink(disk, wait=False, size=4, name="--mcap a.mcap", patience_s=0.2)
    for item in frames[:3]:
        sink.step(item, [])
    errors: list[Exception] = []

    def close() -> None:
        try:
            sink.close()
        except StoreError as error:
            errors.append(error)

    in_time(close)
    assert "--mcap a.mcap: took nothing for 0 s, the last 3 frames are not in it" in str(errors[0])
    disk.works.set()
    assert eventually(lambda: disk.closed)


def test_what_fails_ends_a_file_at_once_and_a_camera_at_its_end(
    frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for wait in (True, False):
        disk = Disk()
        disk.problem = StoreError("masks: No space left on device")
        sink = BackgroundSink(disk, wait=wait)
        sink.step(frames[0], [])
        assert eventually(lambda sink=sink: sink._failed)
        if wait:
            with pytest.raises(StoreError, match="No space"):
                sink.step(frames[1], [])
            sink.close()  # told once
        else:
            sink.step(frames[1], [])
            with pytest.raises(StoreError, match="No space"):
                sink.close()
        assert disk.closed
    (line,) = caplog.messages
    assert line == "masks: No space left on device; what follows is not written, the engine goes on"


def test_the_engine_goes_on_while_a_disk_hangs(motion_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, a new model (which flushes the window) and the end: nothing of it waits for the disk."""
    monkeypatch.setattr(background, "_RESERVE", 2)
    disk, network = Disk(works=False), Network(motion_model)
    source = open_source("demo://?live=1&frames=0&fps=60&size=64x64&objects=2", name="cam")
    lane = Lane(Feed(source, every=False), Pipeline(EngineConfig(), network))
    sink = BackgroundSink(disk, wait=False, size=4, patience_s=0.2)
    session = Session([lane], Report({"generation": 1}), sinks=[sink])
    problems: list[BaseException] = []

    def run() -> None:
        try:
            session.run()
        except StoreError as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for generation in range(2, 10):
            goal = lane.frames + 2
            assert eventually(lambda goal=goal: lane.frames >= goal)
            assert session.swap_model(network, PATIENCE_S) == generation
        session.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    finally:
        disk.works.set()
        session.stop()
        thread.join(PATIENCE_S)
    assert "took nothing" in str(problems[0])
    assert sink.dropped > 0
    assert lane.feed.captured == lane.frames + sum(lane.feed.dropped.values())
