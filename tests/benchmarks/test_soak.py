"""The soak run tells growth and closed books, and breaks what it says it breaks."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import soak
from benchmarks.fault_plan import FAULTS, FaultPlan
from benchmarks.growth import Sample, curve, growth
from benchmarks.small_model import write_small_model
from benchmarks.soak import books
from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline


def samples(kb_per_1000_frames: float, threads_from: int = 1000) -> list[Sample]:
    """A run of 1000 looks, 50 frames apart, that fills buffers during its first fifth."""
    return [
        Sample(
            at_s=2.0 * look,
            frames=50 * look,
            reconnects=look // 4,
            anon_mb=160.0 + min(look, 200) / 10 + kb_per_1000_frames * look * 50 / 1000 / 1024 + (look % 7) / 100,
            file_mb=150.0 - look / 100,
            threads=11 + (look >= threads_from),
            sockets=6,
            files=20,
        )
        for look in range(1000)
    ]


def test_a_leak_is_told_per_thousand_frames_and_buffers_that_fill_are_none() -> None:
    for rate in (0.0, 40.0):
        found = growth(samples(rate))
        told = found["kb_per_1000_frames"]
        assert told["low"] <= rate <= told["high"]
        assert told["kb"] == pytest.approx(rate, abs=0.2)
        assert told["high"] - told["low"] < 2.0
        assert found["warm_up_frames"] == pytest.approx(0.25 * 50 * 1000, abs=50)


def test_what_fills_up_to_a_bound_is_told_from_a_leak_by_the_last_half() -> None:
    leak = growth(samples(40.0))
    assert leak["last_half_kb_per_1000_frames"]["kb"] == pytest.approx(40.0, abs=0.5)
    # Medians of stretches of a twentieth, so nineteen twentieths of what came in 37,500 and in 25,000 frames.
    assert leak["grown_kb"]["after_warm_up"] == pytest.approx(0.95 * 40.0 * 37.5, rel=0.02)
    assert leak["grown_kb"]["last_half"] == pytest.approx(0.95 * 40.0 * 25.0, rel=0.02)
    filling = [
        dataclasses.replace(sample, anon_mb=160.0 + min(sample.frames, 25_000) / 5_000) for sample in samples(0.0)
    ]
    told = growth(filling)
    assert told["kb_per_1000_frames"]["low"] > 0
    assert told["last_half_kb_per_1000_frames"]["kb"] == pytest.approx(0.0, abs=0.01)
    assert told["grown_kb"]["after_warm_up"] > 2000
    assert told["grown_kb"]["last_half"] == pytest.approx(0.0, abs=1.0)


def test_growth_per_reconnect_is_what_each_would_have_cost() -> None:
    # One reconnect in four looks, that is, in 200 frames: five share what 1000 frames grow by.
    told = growth(samples(40.0))["kb_per_reconnect"]
    assert told["kb"] == pytest.approx(8.0, abs=0.1)
    assert told["low"] <= 8.0 <= told["high"]


def test_pages_of_libraries_that_the_kernel_takes_back_do_not_hide_growth() -> None:
    found = growth(samples(40.0))
    assert found["file_mb"]["last_quarter"] < found["file_mb"]["second_quarter"]
    assert found["kb_per_1000_frames"]["low"] > 0


def test_without_reconnects_nothing_is_laid_at_their_door() -> None:
    still = [dataclasses.replace(sample, reconnects=0) for sample in samples(40.0)]
    assert growth(still)["kb_per_reconnect"] == {"kb": None, "low": None, "high": None}


def test_a_thread_too_many_shows_in_the_last_quarter() -> None:
    told = growth(samples(0.0, threads_from=600))
    assert told["threads"] == {"second_quarter": 11, "last_quarter": 12, "max": 12}
    assert told["sockets"] == {"second_quarter": 6, "last_quarter": 6, "max": 6}


def test_too_short_a_run_has_no_slope() -> None:
    assert growth(samples(0.0)[:2])["kb_per_1000_frames"] == {"kb": None, "low": None, "high": None}
    assert growth([])["threads"]["max"] == 0
    assert growth([])["grown_kb"] == {"after_warm_up": None, "last_half": None}


def test_the_curve_is_short_and_covers_the_run() -> None:
    told = curve(samples(0.0))
    assert 100 <= len(told) <= 120
    assert told[0][:2] == [0.0, 0]
    assert told[-1][1] > 0.95 * 50 * 1000


def test_a_missing_frame_is_found() -> None:
    source = {"captured": 10, "frames": 6, "dropped": {"superseded": 3}}
    assert books({"sources": {"a": source}})["a"]["missing"] == 1
    assert books({**source, "captured": 9})["all"]["missing"] == 0


def test_this_process_has_memory_and_threads() -> None:
    sample = Sample.of(os.getpid())
    if sample is None:
        pytest.skip("needs /proc")
    assert sample.anon_mb > 5
    assert sample.file_mb > 1
    assert sample.threads >= 1
    assert sample.files >= sample.sockets >= 0
    assert Sample.of(2**22 + 1) is None


def test_a_recovery_ends_with_the_first_frame_captured_after_the_fault() -> None:
    plan = FaultPlan({})
    plan._awaited["cam"] = ("kill", 2_000)
    plan.seen("cam", 1_999)
    assert plan.recovery_s() == {}
    plan.seen("other", 3_000)
    plan.seen("cam", 3_000)
    assert set(plan.recovery_s()) == {"kill"}
    plan.stop()  # never started: nothing to wait for


@pytest.mark.slow
def test_two_cameras_that_break_lose_no_frame_from_the_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "soak.json"
    arguments = ["soak", "--frames", "600", "--fault-every", "3", "--size", "120x160", "--model", "small"]
    monkeypatch.setattr("sys.argv", [*arguments, "--json", str(result)])
    assert soak.main() == 0
    told = json.loads(result.read_text())
    assert (told["complete"], told["frames"]) == (True, 600)
    assert set(told["faults"]) <= set(FAULTS)
    assert sum(told["reconnects"].values()) > 0
    for name in ("threads", "sockets"):
        assert told[name]["last_quarter"] <= told[name]["second_quarter"] + 2


def test_the_small_model_is_one_the_engine_takes(tmp_path: Path) -> None:
    network = Network(write_small_model(tmp_path / "small.onnx"))
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    pipeline = Pipeline(EngineConfig(), network)
    scenes = [
        scene
        for index in range(8)
        for scene in pipeline.step(Frame(np.roll(image, 6 * index, axis=1), index, index, "cam"))
    ]
    finals = [scene.frame_index for scene in [*scenes, *pipeline.flush()] if scene.kind == "final"]
    assert finals == list(range(8))
    assert network.uses_motion
