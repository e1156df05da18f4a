"""Latency of one backend: what is timed, how it is paced, and what is said where a backend is not there."""

import argparse
import json
import time
from pathlib import Path

import onnxruntime
import pytest

pytest.importorskip("onnx")

from onnx import helper

from benchmarks import batching, latency, model_latency
from benchmarks.model_latency import WARM_UP_FRAMES, timed
from tests.models import GRID, SIZE, save


def test_warm_up_is_left_out_and_every_frame_is_timed() -> None:
    calls: list[int] = []

    def work(index: int) -> None:
        calls.append(index)
        time.sleep(0.05 if len(calls) <= WARM_UP_FRAMES else 0.002)

    figures = timed(work, 6, 0)
    assert calls[WARM_UP_FRAMES:] == list(range(6))
    assert 2 <= figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert figures["p50"] < 40
    assert figures["fps"] > 1


def test_a_pace_is_kept_and_the_wait_is_no_latency() -> None:
    start_s = time.perf_counter()
    figures = timed(lambda index: None, 9, 40)
    assert time.perf_counter() - start_s >= 8 / 40
    assert figures["fps"] <= 9 / (8 / 40)
    assert figures["p50"] < 1
    assert figures["cpu_percent"] < 60


def test_seconds_end_a_stage_early_but_not_before_there_are_enough_frames() -> None:
    at_once = timed(lambda index: None, 1000, 0, seconds=1e-9)
    assert at_once["frames"] == 30
    assert timed(lambda index: None, 7, 0, seconds=1e-9)["frames"] == 7
    assert timed(lambda index: None, 50, 0, seconds=600)["frames"] == 50
    assert timed(lambda index: None, 50, 0)["frames"] == 50


def test_the_report_has_every_stage_and_pace(motion_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--model", str(motion_model), "--source", "demo://?size=240x320", "--frames", "4", "--paces", "0", "60"]
    assert model_latency.main([*options, "--backend", "onnxruntime", "--json", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found["stages"]) == {"model", "perceive", "step"}
    for paces in found["stages"].values():
        assert set(paces) == {"flat out", "60 fps"}
        assert all(row["p50"] <= row["max"] for row in paces.values())
    assert found["stages"]["model"]["flat out"]["p50"] < found["stages"]["step"]["flat out"]["p50"]
    assert found["idle_cpu_percent"] < 5
    assert found["warm_up_frames"] == WARM_UP_FRAMES
    assert found["machine"]["cores"]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_backends_that_are_not_there_are_listed_with_the_reason(motion_model: Path) -> None:
    options = argparse.Namespace(
        backends=["tensorrt", "torch", "onnxruntime"],
        devices=["cuda"],
        model=str(motion_model),
        checkpoint=None,
        compiled=None,
        precision="f32",
        source="demo",
        frames=2,
        paces=[0.0],
        seconds=1.0,
        runs=1,
    )
    told: list[tuple[str, int]] = []
    found = latency.every_backend(options, lambda line, sofar: told.append((line, len(sofar["absent"]))))
    assert [absent for _, absent in told] == [1, 2, 3]
    assert told[-1][0] == "3 of 3: onnxruntime cuda not measured"
    assert found["backends"] == []
    assert set(found["absent"]) == {"tensorrt cuda", "torch cuda", "onnxruntime cuda"}
    assert "onnxruntime-gpu" in found["absent"]["onnxruntime cuda"]
    assert "--checkpoint" in found["absent"]["torch cuda"]


@pytest.mark.slow
def test_a_backend_is_measured_alone_and_in_the_engine_and_written_at_once(
    motion_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    options = ["--backends", "onnxruntime", "torch", "--devices", "cpu", "--model", str(motion_model)]
    options += ["--source", "demo://?size=120x160", "--frames", "60", "--paces", "0", "--seconds", "0.1"]
    assert latency.main([*options, "--json", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["absent"] == {"torch cpu": "give it a file with --checkpoint"}
    (row,) = found["backends"]
    assert set(row["stages"]) == {"model", "perceive", "step", "engine process"}
    assert row["stages"]["engine process"]["flat out"]["fps"] > 0
    assert "1 of 2: onnxruntime cpu measured in" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    options = ["--backends", "onnxruntime", "--devices", "cpu", "--source", "nothing there"]
    assert latency.main([*options, "--json", str(tmp_path / "file" / "report.json")]) == 5
    assert "of 1:" not in capsys.readouterr().err


def test_batching_compares_both_ways_and_refuses_a_fixed_batch(
    motion_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batching.main([str(motion_model)]) == 2
    assert "--any-batch" in capsys.readouterr().err
    free = save(
        tmp_path / "free.onnx",
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("ReduceMean", ["pooled"], ["background"], axes=[1], keepdims=1),
        ],
        {"image": ["batch", 3, *SIZE]},  # type: ignore[list-item]
        {"background": ["batch", 1, *GRID]},  # type: ignore[list-item]
        {},
    )
    report = tmp_path / "report.json"
    assert batching.main([str(free), "--cameras", "1", "3", "--rounds", "3", "--json", str(report)]) == 0
    rows = json.loads(report.read_text(encoding="utf-8"))["cameras"]
    assert set(rows) == {"1", "3"}
    assert all(row["batched_ms"] > 0 and row["single_ms"] > 0 for row in rows.values())
