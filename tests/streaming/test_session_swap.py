"""`Session.swap_model`: all sources change between two frames, and every scene names the model that saw its frame."""

import threading
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.feed import Feed
from streaming.lane import Lane
from streaming.report import Report
from streaming.session import Session
from streaming.sinks.background import BackgroundSink
from streaming.sources import open_source

pytest.importorskip("onnx")
from tests.swappable import variant

FRAMES = 24
AT = 8
URI = f"demo://?frames={FRAMES}&size=120x214"


class Collector:
    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        self.scenes += scenes

    def close(self) -> None: ...


@pytest.mark.parametrize("overlap", [False, True])
def test_every_source_changes_once_and_loses_nothing(motion_model: Path, tmp_path: Path, overlap: bool) -> None:
    networks = [Network(motion_model), *(Network(variant(tmp_path / f"{i}.onnx", i)) for i in range(2))]
    lanes = [
        Lane(
            Feed(open_source(f"{URI}&seed={seed}", name=f"cam{seed}"), every=True),
            Pipeline(EngineConfig(), networks[0]),
        )
        for seed in (1, 2)
    ]
    collector, report = Collector(), Report({"name": "motion", "hash": networks[0].hash, "generation": 1})
    session = Session(lanes, report, sinks=[BackgroundSink(collector, wait=True)], overlap=overlap)
    # The engine waits here, so that the swaps come where the test says and not after the end.
    reached, asked = threading.Event(), threading.Event()

    def hold(done: object) -> None:
        if lanes[0].frames == AT and not reached.is_set():
            reached.set()
            assert asked.wait(60)

    session.observe(hold)
    thread = threading.Thread(target=session.run)
    thread.start()
    assert reached.wait(60)
    threading.Timer(0.2, asked.set).start()
    generations = [session.swap_model(network) for network in networks[1:]]
    thread.join(60)
    assert not thread.is_alive()
    assert generations == [2, 3]
    assert report.to_dict()["model"]["generation"] == 3
    for lane in lanes:
        scenes = [scene for scene in collector.scenes if scene.source == lane.name]
        for kind in ("provisional", "final"):
            assert [s.frame_index for s in scenes if s.kind == kind] == list(range(FRAMES))
        seen = [s.evidence.generation for s in scenes if s.kind == "final"]
        assert seen == sorted(seen)
        assert seen[0] == 1
        assert seen[-1] == 3
        hashes = {s.evidence.generation: s.evidence.model_hash for s in scenes if s.kind == "final"}
        assert all(networks[generation - 1].hash == found for generation, found in hashes.items())
    with pytest.raises(EngineError, match="has ended"):
        session.swap_model(networks[0])
