"""The threaded session gives the scenes of the single-threaded definition, and ends in good order."""

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import EngineConfig
from engine.errors import ModelError, SourceError, StoreError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.feed import Feed
from streaming.lane import Lane
from streaming.report import Report
from streaming.session import Session
from streaming.sinks.background import BackgroundSink
from streaming.sinks.masks import MaskWriter
from streaming.sinks.overlay_video import OverlayVideo
from streaming.sources import open_source
from streaming.sources.base import Source

FRAMES = 30
URI = f"demo://?frames={FRAMES}&seed=5&size=240x428"
MODEL = {"name": "test", "hash": "0", "generation": 1}


class Collector:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []
        self.closed = False

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        self.scenes += scenes

    def close(self) -> None:
        self.closed = True


class Failing(Source):
    """Some good frames, then a dead camera."""

    live = True

    def __init__(self, frames: int) -> None:
        super().__init__("test://", "failing")
        self._frames, self._index = frames, 0
        self._inner = open_source(URI)

    def read(self) -> Frame | None:
        if self._index == self._frames:
            raise SourceError("camera unplugged")
        self._index += 1
        return self._inner.read()

    def close(self) -> None:
        self._inner.close()


@pytest.fixture(scope="module")
def network(motion_model: Path) -> Network:
    return Network(motion_model)


def session(source: Source, network: Network, collector: Collector, **options: object) -> tuple[Session, Report]:
    report = Report(MODEL)
    sinks = [BackgroundSink(collector, wait=True), *options.pop("sinks", [])]
    pipeline = options.pop("pipeline", None) or Pipeline(EngineConfig(), network)
    return Session([Lane(Feed(source, every=True), pipeline)], report, sinks=sinks, **options), report


@pytest.mark.parametrize("overlap", [False, True])
def test_threads_change_nothing(network: Network, overlap: bool) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    with open_source(URI) as source:
        expected = [scene for frame in source for scene in pipeline.step(frame)]
    expected += pipeline.flush()
    collector = Collector()
    runner, report = session(open_source(URI), network, collector, overlap=overlap)
    runner.run()
    assert collector.closed
    assert report.frames == FRAMES
    assert [(s.kind, s.frame_index, s.objects) for s in collector.scenes] == [
        (s.kind, s.frame_index, s.objects) for s in expected
    ]
    assert all((a.labels == b.labels).all() for a, b in zip(collector.scenes, expected, strict=True))


def test_max_frames_ends_early_and_still_flushes(network: Network) -> None:
    collector = Collector()
    runner, report = session(open_source(URI), network, collector, max_frames=7)
    runner.run()
    assert report.frames == 7
    assert [s.frame_index for s in collector.scenes if s.kind == "final"] == list(range(7))


def test_stop_from_another_thread_flushes(network: Network) -> None:
    collector = Collector()
    third = threading.Event()
    runner, report = session(
        open_source("demo://?seed=5&size=240x428&live=1&frames=100000"),
        network,
        collector,
        on_frame=lambda frame, _: third.set() if frame.index >= 3 else None,
    )
    thread = threading.Thread(target=runner.run)
    thread.start()
    assert third.wait(60)
    runner.stop()
    thread.join(60)
    assert not thread.is_alive()
    finals = [s.frame_index for s in collector.scenes if s.kind == "final"]
    assert finals == sorted(finals)
    assert len(finals) == report.frames


def test_a_dead_camera_ends_the_run_but_loses_no_frame(network: Network) -> None:
    collector = Collector()
    runner, report = session(Failing(9), network, collector)
    with pytest.raises(SourceError, match="unplugged"):
        runner.run()
    finals = [s.frame_index for s in collector.scenes if s.kind == "final"]
    assert finals == list(range(9))
    assert report.to_dict()["commit"]["exact"] + report.to_dict()["commit"]["forced"] == 9


def test_a_model_that_breaks_is_one_line(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    real, calls = pipeline.perceive, []

    def breaks(frame: Frame) -> object:
        calls.append(frame.index)
        if len(calls) == 4:
            raise RuntimeError("bad tensor\nsecond line")
        return real(frame)

    monkeypatch.setattr(pipeline, "perceive", breaks)
    collector = Collector()
    runner, _ = session(open_source(URI), network, collector, pipeline=pipeline)
    with pytest.raises(ModelError) as error:
        runner.run()
    assert "\n" not in str(error.value)
    assert [s.frame_index for s in collector.scenes if s.kind == "final"] == [0, 1, 2]


def test_an_error_without_words_is_still_an_error(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(EngineConfig(), network)

    def breaks(frame: Frame) -> object:
        raise MemoryError

    monkeypatch.setattr(pipeline, "perceive", breaks)
    runner, _ = session(open_source(URI), network, Collector(), pipeline=pipeline)
    with pytest.raises(ModelError, match="MemoryError"):
        runner.run()


def test_a_broken_publisher_does_not_keep_files_from_being_finished(network: Network) -> None:
    class Broken:
        def set_state(self, *_: object) -> None: ...

        def publish(self, *_: object, **__: object) -> None:
            raise SourceError("publisher died")

        def eos(self, *_: object) -> None:
            raise SourceError("still dead")

    collector = Collector()
    runner, _ = session(open_source(URI), network, collector, publisher=Broken())
    with pytest.raises(SourceError, match="publisher died"):
        runner.run()
    assert collector.closed


def test_a_full_disk_is_a_store_error_and_other_sinks_get_everything(network: Network) -> None:
    class FullDisk(Collector):
        def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
            raise StoreError("masks: No space left on device")

    collector, report = Collector(), Report(MODEL)
    # The broken one comes first: it must not keep the frame from those behind it.
    sinks = [BackgroundSink(FullDisk(), wait=True), BackgroundSink(collector, wait=True)]
    lane = Lane(Feed(open_source(URI), every=True), Pipeline(EngineConfig(), network))
    runner = Session([lane], report, sinks=sinks)
    with pytest.raises(StoreError, match="No space"):
        runner.run()
    finals = [s.frame_index for s in collector.scenes if s.kind == "final"]
    assert finals == list(range(report.frames))


def test_saved_masks_are_the_final_label_maps(network: Network, tmp_path: Path) -> None:
    collector = Collector()
    runner, _ = session(open_source(URI), network, collector, sinks=[BackgroundSink(MaskWriter(tmp_path), wait=True)])
    runner.run()
    lines = [json.loads(line) for line in (tmp_path / "objects.jsonl").read_text().splitlines()]
    finals = [s for s in collector.scenes if s.kind == "final"]
    assert [line["frame"] for line in lines] == [s.frame_index for s in finals]
    for scene, line in zip(finals, lines, strict=True):
        ids = cv2.imread(str(tmp_path / "masks" / f"{scene.frame_index:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert ids.dtype == np.uint16
        for item, saved in zip(scene.objects, line["objects"], strict=True):
            assert saved["id"] == item.id
            assert np.array_equal(ids == item.id, scene.labels == item.label)
        shown = [item.label for item in scene.objects if item.foreground > 0.5]
        foreground = cv2.imread(str(tmp_path / "foreground" / f"{scene.frame_index:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(foreground == 255, np.isin(scene.labels, shown))
        assert set(np.unique(foreground)) <= {0, 255}


def test_images_of_somebody_else_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    theirs = tmp_path / "masks" / "00000.png"
    theirs.write_bytes(b"precious")
    with pytest.raises(StoreError, match="somebody else"):
        MaskWriter(tmp_path)
    assert theirs.read_bytes() == b"precious"


def test_frames_whose_finals_never_come_are_not_kept(network: Network, tmp_path: Path) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    overlay = OverlayVideo(tmp_path / "o.mp4", 30)
    with open_source(URI) as source:
        for frame in source:
            scenes = pipeline.step(frame)
            if frame.index % 2:  # a live sink that is late loses every second hand-over
                overlay.step(frame, scenes)
            assert len(overlay._frames) <= 10
    overlay.close()


def test_an_unwritable_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--save-masks"):
        MaskWriter(tmp_path / "file")
