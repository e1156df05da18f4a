"""The viewers of the cost benchmark really watch, and what is lost is computed from neighbours in time."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import preview_cost
from benchmarks.preview_cost import Viewer, main, measure, median_interval
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.server import PreviewServer
from tests.streaming.preview.stage import Remembering, frame_done
from tests.streaming.scenes import eventually


def test_a_viewer_gets_pictures_until_the_engine_ends() -> None:
    view = LiveView(lambda: [{"name": "cam"}])
    server = PreviewServer(view, Actions(Remembering(), view), port=0)
    viewer = Viewer(server.url, "v0")
    viewer.start()
    index = 0

    def three_came() -> bool:
        nonlocal index
        view.observe(frame_done(index := index + 1))
        return viewer.pictures >= 3

    assert eventually(three_came)
    assert viewer.bytes > 3000
    view.close()
    server.close()
    viewer.join(60)
    assert not viewer.is_alive()


def test_what_is_lost_is_the_median_over_pairs_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {-1: iter([40.0, 20.0, 30.0] * 3), 1: iter([38.0, 18.0, 30.0] * 3)}
    order: list[int] = []

    def run_once(pace: str, frames: int, viewers: int, size: str) -> dict[str, float]:
        order.append(viewers)
        fps = next(rates[viewers])
        quantities = {"total_p50_ms": 1000 / fps, "cpu_ms_per_frame": 10.5 if viewers == 1 else 10.0}
        return {"fps": fps, "pictures_per_s": 10.0, "kb_per_s": 200.0, **quantities}

    monkeypatch.setattr(preview_cost, "run_once", run_once)
    plain, watched = measure("none", 100, 9, [1])["variants"]
    assert order[:4] == [-1, 1, 1, -1]
    assert (plain["viewers"], plain["fps"], plain["fps_lost"]["median"]) == (None, 30.0, 0.0)
    assert (watched["viewers"], watched["fps"]) == (1, 30.0)
    assert watched["fps_lost"] == {"median": 0.05, "low": 0.0, "high": 0.1}
    assert watched["cpu_added"] == {"median": 0.05, "low": 0.05, "high": 0.05}


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = median_interval(list(rng.normal(0.02, 0.05, 8)))
        hits += found["low"] <= 0.02 <= found["high"]
    assert hits / 300 > 0.95
    assert median_interval([0.1, 0.2]) == {"median": 0.15, "low": None, "high": None}


def test_an_engine_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "nonsense", "--frames", "20", "--runs", "1", "--viewers", "1", "--paces", "none"]
    assert main(arguments) == 3
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]


def test_the_processor_time_of_a_picture_is_measured_without_an_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "cost.json"
    assert main(["--runs", "0", "--size", "120x160", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["paces"] == []
    assert 0 < content["picture_cpu_ms"] < 1000
    assert "of a core at 10 Hz" in capsys.readouterr().out
