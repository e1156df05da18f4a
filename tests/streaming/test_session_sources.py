"""Several sources in one session: fair, independent, added and removed while it runs, every frame accounted for."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from benchmarks.fault_server import MjpegServer
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.feed import Feed, Timeouts
from streaming.lane import Lane, SourceStatus
from streaming.lane_factory import LaneFactory, unique_names
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.schedule import Schedule, Taken
from streaming.session import Session
from streaming.sources import open_source
from streaming.sources.base import Source
from streaming.sources.camera import camera_identity
from streaming.subscriber import MaskSubscriber

SMALL = "size=120x214&objects=3"
LIVE = f"demo://?live=1&frames=0&fps=15&{SMALL}"
MODEL = {"name": "test", "hash": "0", "generation": 1}
PATIENCE_S = 60.0


class Collector:
    """Called in the engine thread itself: what a call to the session brought about is here when it returns."""

    dropped = 0

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        self.scenes += scenes

    def close(self) -> None: ...

    def of(self, source: str, kind: str = "final") -> list[Scene]:
        return [scene for scene in self.scenes if (scene.source, scene.kind) == (source, kind)]


class Running:
    """A session at work in a thread of its own."""

    def __init__(self, network: Network, *texts: str, timeouts: Timeouts | None = None, **options: object) -> None:
        self.collector = Collector()
        self.report = Report(MODEL)
        self.factory = LaneFactory(EngineConfig(), network, timeouts=timeouts)
        self.session = Session(
            self.factory.open_all(texts) if texts else [],
            self.report,
            open_lane=self.factory.open,
            sinks=[self.collector],  # type: ignore[list-item]
            **options,  # type: ignore[arg-type]
        )
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.session.run()
        except BaseException as error:
            self.error = error

    def source(self, name: str) -> SourceStatus:
        return next(status for status in self.session.sources() if status.name == name)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, self.session.sources()
            assert self._thread.is_alive(), self.error
            time.sleep(0.01)

    def wait_for_frames(self, name: str, count: int = 3) -> None:
        goal = self.source(name).frames + count
        self.wait(lambda: self.source(name).frames >= goal)

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def stop(self) -> dict[str, object]:
        """End, raise what went wrong, and check the books; returns the statistics."""
        self.session.stop()
        self.join()
        if self.error is not None:
            raise self.error
        content = self.report.to_dict()
        for status in self.session.sources():
            assert status.captured == status.frames + sum(status.dropped.values()), status
        assert content["captured"] == content["frames"] + sum(content["dropped"].values())
        return content


@pytest.fixture(scope="module")
def network(motion_model: Path) -> Network:
    return Network(motion_model)


@pytest.fixture
def start(network: Network) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(*texts: str, **options: object) -> Running:
        started.append(Running(network, *texts, **options))  # type: ignore[arg-type]
        return started[-1]

    yield run
    for running in started:
        running.session.stop()
        running.join()


@pytest.mark.parametrize("overlap", [False, True])
def test_a_source_is_seen_as_if_it_were_alone(network: Network, start: Callable[..., Running], overlap: bool) -> None:
    uris = {"a": f"demo://?frames=14&seed=5&{SMALL}", "b": f"demo://?frames=9&seed=6&{SMALL}"}
    running = start(*(f"{name}={uri}" for name, uri in uris.items()), overlap=overlap)
    running.join()
    content = running.stop()
    for name, uri in uris.items():
        pipeline = Pipeline(EngineConfig(), network)
        with open_source(uri, name=name) as source:
            expected = [scene for frame in source for scene in pipeline.step(frame)] + pipeline.flush()
        scenes = [scene for scene in running.collector.scenes if scene.source == name]
        assert [(s.kind, s.frame_index, s.objects) for s in scenes] == [
            (s.kind, s.frame_index, s.objects) for s in expected
        ]
        assert all((one.labels == other.labels).all() for one, other in zip(scenes, expected, strict=True))
    assert {name: (s["captured"], s["frames"], s["state"]) for name, s in content["sources"].items()} == {
        "a": (14, 14, "ended"),
        "b": (9, 9, "ended"),
    }


class Endless(Source):
    """A file that never waits."""

    def __init__(self, name: str) -> None:
        super().__init__(name, name)
        self._inner = open_source(f"demo://?frames=0&size=64x64&objects=0&seed={ord(name[0])}", name=name)

    def read(self) -> Frame | None:
        return self._inner.read()

    def close(self) -> None:
        self._inner.close()


def test_turns_are_fair(network: Network) -> None:
    lanes = [Lane(Feed(Endless(name), every=True), Pipeline(EngineConfig(), network)) for name in ("x", "y", "z")]
    schedule = Schedule(lanes)
    for lane in lanes:
        lane.feed.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while any(lane.feed.captured < 3 for lane in lanes):
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    order = []
    for _ in range(6):
        found = schedule.next_frame(PATIENCE_S)
        assert isinstance(found, Taken)
        order.append(found.lane.name)
    assert order == ["x", "y", "z"] * 2
    for lane in lanes:
        lane.feed.stop()
        assert lane.feed.captured == 2 + lane.feed.dropped["stopped"]


def test_sources_come_and_go(start: Callable[..., Running]) -> None:
    running = start(f"a={LIVE}")
    running.wait_for_frames("a")
    assert running.session.add_source(f"b={LIVE}&seed=4") == "b"
    running.wait_for_frames("b", 8)
    with pytest.raises(UsageError, match="'b' exists already"):
        running.session.add_source(f"b={LIVE}")
    with pytest.raises(SourceError, match="absent"):
        running.session.add_source("c=absent.mp4")
    running.session.remove_source("b")
    assert [status.name for status in running.session.sources()] == ["a"]
    first = running.collector.of("b")
    assert first[-1].frame_index == running.collector.of("b", "provisional")[-1].frame_index
    ids = {item.id for scene in first for item in scene.objects}
    running.session.add_source(f"b={LIVE}&seed=4")
    running.wait_for_frames("b", 8)
    content = running.stop()
    second = running.collector.of("b")[len(first) :]
    # Neither a frame number nor an id means two things within a run.
    assert second[0].frame_index > first[-1].frame_index
    assert not ids & {item.id for scene in second for item in scene.objects}
    assert content["sources"]["b"]["frames"] == len(first) + len(second)
    with pytest.raises(UsageError, match="no source 'x'; there are: a b"):
        running.session.remove_source("x")


def test_without_sources_it_waits_for_one(start: Callable[..., Running]) -> None:
    running = start()
    running.session.add_source(f"a=demo://?frames=4&{SMALL}")
    running.join()
    assert running.stop()["frames"] == 4


def test_one_pauses_and_the_others_go_on(start: Callable[..., Running]) -> None:
    running = start(f"a={LIVE}", f"b={LIVE}&seed=1")
    running.wait_for_frames("a")
    running.session.pause("a")
    assert running.source("a").paused
    running.wait_for_frames("b", 1)
    count = running.source("a").frames
    running.wait(lambda: running.source("a").dropped.get("paused", 0) > 2)
    assert running.source("a").frames <= count + 3  # those in work when the pause began
    running.session.pause()
    running.session.resume()
    running.wait_for_frames("a")
    running.wait_for_frames("b")
    running.stop()


def test_prompts_and_snapshots_go_to_their_source(start: Callable[..., Running]) -> None:
    running = start(f"a={LIVE}", f"b={LIVE}&seed=1")
    running.wait_for_frames("b")
    identity = running.session.track("b", box=(60, 30, 140, 100))
    running.wait(lambda: any(item.id == identity for item in running.session.snapshot("b")[1].objects))
    frame, scene = running.session.snapshot("b")
    assert (frame.source, frame.index) == (scene.source, scene.frame_index)
    assert scene.kind == "provisional"
    running.session.forget("b", identity)
    with pytest.raises(UsageError):
        running.session.forget("b", identity)
    with pytest.raises(UsageError):
        running.session.track("b", box=(9, 9, 2, 2))
    with pytest.raises(UsageError, match="name one of the sources: a b"):
        running.session.snapshot()
    running.stop()


def test_calls_run_between_frames_and_are_refused_afterwards(start: Callable[..., Running]) -> None:
    running = start(f"a={LIVE}")
    running.wait_for_frames("a")
    threads = {running.session.call(threading.get_ident) for _ in range(5)}
    assert threads == {running._thread.ident}
    with pytest.raises(ZeroDivisionError):
        running.session.call(lambda: 1 // 0)
    blocks, release = threading.Event(), threading.Event()

    def block() -> None:
        blocks.set()
        release.wait(PATIENCE_S)

    blocker = threading.Thread(target=lambda: running.session.call(block, PATIENCE_S))
    blocker.start()
    assert blocks.wait(PATIENCE_S)
    ran: list[int] = []
    with pytest.raises(EngineError, match=r"within 0\.2 s"):
        running.session.call(lambda: ran.append(1), timeout_s=0.2)
    release.set()
    blocker.join()
    running.wait_for_frames("a")
    assert ran == []  # who gave up is not surprised later
    running.stop()
    with pytest.raises(EngineError, match="has ended"):
        running.session.call(lambda: ran.append(2))


def test_every_window_is_decided_before_another_model_sees(motion_model: Path, start: Callable[..., Running]) -> None:
    # Room for everything: a busy machine must not lose what this test counts.
    publisher = Publisher("tcp://127.0.0.1:*", queue_size=1000, send_hwm=1000)
    with MaskSubscriber(publisher.endpoint, kind="both", every=True, queue_size=10_000) as subscriber:
        assert publisher.wait_for_subscriber(PATIENCE_S)
        running = start(f"a={LIVE}", f"b={LIVE}&seed=1", publisher=publisher)
        running.wait_for_frames("b", 6)
        network = Network(motion_model)
        before = {name: running.session.snapshot(name)[0].index for name in "ab"}
        generation = running.session.swap_model(network)
        after = {name: running.session.snapshot(name)[0].index for name in "ab"}
        running.wait_for_frames("a", 6)
        running.wait_for_frames("b", 6)
        content = running.stop()
        publisher.close(PATIENCE_S)
        seen = list(subscriber)
    assert content["model"]["generation"] == generation > 1
    for name in "ab":
        of_source = [message for message in seen if message.source == name]
        generations = [message.model.generation for message in of_source]
        assert generations == sorted(generations)  # neither forth and back nor both in one window
        assert set(generations) == {0, generation}
        last_old = [m.frame for m in of_source if m.kind == "final" and m.model.generation == 0][-1]
        assert before[name] <= last_old <= after[name]
        finals = [message.frame for message in of_source if message.kind == "final"]
        assert finals == [message.frame for message in of_source if message.kind == "provisional"]


class FailingFile(Source):
    def __init__(self) -> None:
        super().__init__("file", "broken")
        self._inner = open_source(f"demo://?frames=5&{SMALL}", name="broken")

    def read(self) -> Frame | None:
        frame = self._inner.read()
        if frame is None:
            raise SourceError("disk error")
        return frame

    def close(self) -> None:
        self._inner.close()


def test_a_file_that_fails_ends_alone(network: Network) -> None:
    lanes = [
        Lane(Feed(source, every=True), Pipeline(EngineConfig(), network))
        for source in (FailingFile(), open_source(f"demo://?frames=12&{SMALL}", name="good"))
    ]
    collector = Collector()
    session = Session(lanes, Report(MODEL), sinks=[collector])  # type: ignore[list-item]
    with pytest.raises(SourceError, match="disk error"):
        session.run()
    assert [scene.frame_index for scene in collector.of("broken")] == list(range(5))
    assert [scene.frame_index for scene in collector.of("good")] == list(range(12))


def test_after_a_reconnect_nothing_is_carried_over_and_subscribers_are_told(start: Callable[..., Running]) -> None:
    server = MjpegServer()
    publisher = Publisher("tcp://127.0.0.1:*")
    try:
        with MaskSubscriber(publisher.endpoint, kind="provisional") as subscriber:
            running = start(f"cam={server.uri}", timeouts=Timeouts(2.0, 1.0), publisher=publisher, overlap=True)
            running.wait_for_frames("cam", 8)
            running.wait(lambda: subscriber.state("cam") == "live")
            server.kill()
            running.wait(lambda: subscriber.state("cam") == "reconnecting")
            boundary = running.source("cam").captured
            server.start()
            running.wait_for_frames("cam", 9)
            running.wait(lambda: subscriber.state("cam") == "live")
        content = running.stop()
    finally:
        publisher.close()
        server.close()
    assert content["captured"] == content["frames"] + sum(content["dropped"].values())
    finals = running.collector.of("cam")
    assert [scene.frame_index for scene in finals] == [
        scene.frame_index for scene in running.collector.of("cam", "provisional")
    ]
    before = {item.id for scene in finals if scene.frame_index < boundary for item in scene.objects}
    after = {item.id for scene in finals if scene.frame_index >= boundary for item in scene.objects}
    assert finals[-1].frame_index >= boundary
    assert not before & after


def test_after_a_silence_what_was_undecided_is_final_and_ids_live_on(start: Callable[..., Running]) -> None:
    server = MjpegServer(fps=10)
    try:
        running = start(f"cam={server.uri}", timeouts=Timeouts(20.0, 30.0))
        running.wait(lambda: any(scene.objects for scene in running.collector.of("cam")))
        running.wait_for_frames("cam", 10)
        server.frozen = True
        running.wait(lambda: running.source("cam").state == "stalled")
        boundary = running.source("cam").captured

        def ids(*, after: bool) -> set[int]:
            finals = running.collector.of("cam")
            return {item.id for scene in finals if (scene.frame_index >= boundary) is after for item in scene.objects}

        server.frozen = False
        running.wait(lambda: bool(ids(after=False) & ids(after=True)))
        assert running.source("cam").reconnects == 0
        running.stop()
    finally:
        server.close()
    assert [scene.frame_index for scene in running.collector.of("cam")] == [
        scene.frame_index for scene in running.collector.of("cam", "provisional")
    ]


def test_the_books_of_four_sources_close(start: Callable[..., Running], tmp_path: Path) -> None:
    server = MjpegServer()
    folder = tmp_path / "frames"
    folder.mkdir()
    with open_source(f"demo://?frames=12&{SMALL}") as source:
        for frame in source:
            cv2.imwrite(str(folder / f"{frame.index}.jpg"), frame.image)
    (folder / "7.jpg").write_bytes(b"\xff\xd8broken")
    try:
        running = start(
            f"fast=demo://?live=1&frames=0&fps=200&{SMALL}",
            f"slow=demo://?live=1&frames=0&fps=4&{SMALL}",
            f"file={folder}",
            f"net={server.uri}",
            timeouts=Timeouts(2.0, 0.5),
        )
        for fault in (server.cut_mid_frame, lambda: setattr(server, "corrupt", True)):
            running.wait_for_frames("net")
            fault()
        running.wait(lambda: running.source("file").state == "ended" and running.source("net").reconnects)
        running.session.pause("fast")
        running.wait_for_frames("slow", 2)
        running.session.resume("fast")
        running.wait_for_frames("fast", 4)
        content = running.stop()
    finally:
        server.close()
    sources = content["sources"]
    assert (sources["file"]["captured"], sources["file"]["frames"]) == (12, 11)
    assert sources["file"]["dropped"] == {"corrupt": 1}
    assert {"superseded", "paused"} <= set(sources["fast"]["dropped"])
    assert sum(source["frames"] for source in sources.values()) == content["frames"]
    for name, source in sources.items():
        published = running.collector.of(name, "provisional")
        assert len(published) == len(running.collector.of(name)) == source["frames"]
        assert source["captured"] == source["frames"] + sum(source["dropped"].values())


def test_dead_sources_at_the_start(network: Network, tmp_path: Path) -> None:
    factory = LaneFactory(EngineConfig(), network, timeouts=Timeouts(0.5, 0.5))
    dead, good = "dead=tcp://me:hunter2@127.0.0.1:9", f"good={LIVE}"
    lanes = factory.open_all([dead, good])
    assert [(lane.name, lane.feed.state) for lane in lanes] == [("dead", "reconnecting"), ("good", "live")]
    assert "hunter2" not in lanes[0].feed.uri
    for lane in lanes:
        assert lane.feed.stop()
    for texts, require_all in (([dead, good], True), ([dead], False), ([good, "file=absent.mp4"], False)):
        with pytest.raises(SourceError) as caught:
            factory.open_all(texts, require_all=require_all)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError):
        factory.open_all([good, "x=demo://?sede=1"])


def test_names() -> None:
    assert [name for name, _ in unique_names(["a/clip.mp4", "b/clip.mp4", "clip-2=c.mp4", "d/clip.mp4"])] == [
        "clip",
        "clip-3",
        "clip-2",
        "clip-4",
    ]
    with pytest.raises(UsageError, match="two sources are called 'a'"):
        unique_names(["a=x.mp4", "a=y.mp4"])


def test_a_camera_is_known_by_its_serial_number_not_by_its_place(tmp_path: Path) -> None:
    link = tmp_path / "usb-Maker_Model_0042-video-index0"
    link.symlink_to("/dev/video3")
    (tmp_path / "usb-Other-video-index0").symlink_to("/dev/video1")
    for uri in ("3", "/dev/video3"):
        assert camera_identity(uri, str(tmp_path)) == str(link)
    assert camera_identity("2", str(tmp_path)) == "2"
    assert camera_identity("/dev/v4l/by-id/x", str(tmp_path)) == "/dev/v4l/by-id/x"
    assert camera_identity("clip.mp4", str(tmp_path)) == "clip.mp4"
