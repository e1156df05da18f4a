"""The cost report of the seeds: what it adds up, on a few frames and on invented times."""

import json
from pathlib import Path

import pytest

from benchmarks.seeds_cost import LEFT_OUT, main, summary


def test_every_part_of_the_built_in_scene_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    source = "demo://?seed=203&size=240x428&frames=40"
    assert main(["--source", source, "--frames", str(LEFT_OUT + 8), "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["frames"] == 8
    parts = content["parts"]
    assert set(parts) == {"seeds", "step", "learn", "step: look", "step: recall", "step: propagate", "step: grow"}
    assert parts["step: look"]["ms"] <= parts["step"]["ms"] <= parts["seeds"]["p95_ms"]
    for row in parts.values():
        assert 0 < row["ms"] <= row["p95_ms"]
    assert parts["seeds"]["cpu_ms"] > 0
    assert content["within_target"] == (parts["seeds"]["cpu_ms"] <= content["target_ms"])
    assert "seeds" in capsys.readouterr().out


def test_a_part_is_summarised_over_the_frames_that_had_it() -> None:
    rows = [{"seeds": (float(ms), 0.5 * ms)} for ms in range(1, 22)]
    rows[0]["learn"] = (7.0, float("nan"))
    found = summary(rows)
    assert list(found) == ["seeds", "learn"]
    assert found["seeds"] == {"frames": 21, "ms": 11.0, "p95_ms": 20.0, "cpu_ms": 5.5, "p95_cpu_ms": 10.0}
    assert found["learn"] == {"frames": 1, "ms": 7.0, "p95_ms": 7.0, "cpu_ms": None, "p95_cpu_ms": None}


@pytest.mark.parametrize("source", ["/nowhere/clip.mp4", "demo://?frames=4&size=120x214"])
def test_a_source_that_is_not_there_or_too_short_is_one_line(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", source]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
