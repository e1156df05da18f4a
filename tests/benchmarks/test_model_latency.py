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
        runs=1,
    )
    found = latency.every_backend(options)
    assert found["backends"] == []
    assert set(found["absent"]) == {"tensorrt cuda", "torch cuda", "onnxruntime cuda"}
    assert "onnxruntime-gpu" in found["absent"]["onnxruntime cuda"]
    assert "--checkpoint" in found["absent"]["torch cuda"]


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
