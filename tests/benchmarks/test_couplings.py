"""The table of couplings: each row is the engine so configured, and no row disturbs another."""

import json
from pathlib import Path

import pytest

from benchmarks.couplings import MEASURES, ROWS, Row, main
from benchmarks.tracking import demo_frames
from engine.config import EngineConfig, apply
from engine.perceive.network import Network

FRAMES = 5


def test_every_row_is_reported_as_the_engine_alone_gives_it(
    default_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "couplings.json"
    assert main(["--seeds", "110", "--frames", str(FRAMES), "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == list(ROWS)
    assert all(set(row["mean"]) == set(MEASURES) for row in rows.values())
    alone = Row(apply(EngineConfig(), ROWS["carry only"]), Network(default_model))
    truths = {}
    for frame, truth in demo_frames(110, FRAMES):
        truths[frame.index] = truth[::4, ::4]
        alone.take(alone.pipeline.step(frame), truths)
        alone.timed()
    alone.take(alone.pipeline.flush(), truths)
    found = {key: value for key, value in alone.figures().items() if key != "ms"}
    assert {key: rows["carry only"]["scenes"]["seed 110"][key] for key in found} == found
    assert "carry only" in capsys.readouterr().out


def test_no_seeds_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", ""]) == 2
    assert capsys.readouterr().err.count("\n") == 1
