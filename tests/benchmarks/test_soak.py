"""The soak run tells growth and closed books, and breaks what it says it breaks."""

import json
import os
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.fault_plan import FAULTS, FaultPlan
from benchmarks.soak import Sample, books, growth


def test_growth_is_told_per_hour_and_by_quarters() -> None:
    samples = [Sample(float(second), 300.0 + second / 10, 11 + second // 50, 6) for second in range(100)]
    told = growth(samples)
    assert told["rss_slope_mb_per_hour"] == pytest.approx(360.0)
    assert (told["threads_second_quarter"], told["threads_last_quarter"]) == (11, 12)
    assert told["sockets_last_quarter"] == 6


def test_a_missing_frame_is_found() -> None:
    source = {"captured": 10, "frames": 6, "dropped": {"superseded": 3}}
    assert books({"sources": {"a": source}})["a"]["missing"] == 1
    assert books({**source, "captured": 9})["all"]["missing"] == 0


def test_this_process_has_memory_and_threads() -> None:
    sample = Sample.of(os.getpid())
    if sample is None:
        pytest.skip("needs /proc")
    assert sample.rss_mb > 10
    assert sample.threads >= 1
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
def test_two_cameras_that_break_lose_no_frame_from_the_books(
    tmp_path: Path, motion_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "soak.json"
    arguments = ["soak", "--frames", "600", "--fault-every", "3", "--json", str(result)]
    monkeypatch.setattr("sys.argv", [*arguments, "--", "--model", str(motion_model)])
    assert soak.main() == 0
    told = json.loads(result.read_text())
    assert told["frames"] == 600
    assert set(told["faults"]) <= set(FAULTS)
    assert sum(told["reconnects"].values()) > 0
    assert told["threads_last_quarter"] <= told["threads_second_quarter"] + 2
    assert told["sockets_last_quarter"] <= told["sockets_second_quarter"] + 2
