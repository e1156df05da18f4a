"""The viewers of the cost benchmark watch and look away, and what is lost is computed from neighbours in time."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks import preview_cost
from benchmarks.preview_cost import main, median_interval, summary
from benchmarks.preview_watched import Viewer
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.server import PreviewServer
from tests.streaming.preview.stage import Remembering, frame_done
from tests.streaming.scenes import eventually


def side(fps: float, cpu_ms: float) -> dict[str, float]:
    """One window."""
    return {
        "fps": fps,
        "age_p50_ms": 1000 / fps,
        "cpu_ms_per_frame": cpu_ms,
        "pictures_per_s": 10.0,
        "kb_per_s": 200.0,
    }


def test_a_viewer_gets_pictures_until_it_looks_away_and_ends_with_the_engine() -> None:
    view = LiveView(lambda: [{"name": "cam"}])
    server = PreviewServer(view, Actions(Remembering(), view), port=0)
    viewer = Viewer(server.url, "v0")
    viewer.start()
    index = 0

    def came(pictures: int) -> bool:
        nonlocal index
        view.observe(frame_done(index := index + 1))
        return viewer.pictures >= pictures

    assert eventually(lambda: came(3))
    assert viewer.bytes > 3000
    viewer.watching.clear()
    assert eventually(lambda: not view._asked)  # the last request is answered
    seen = viewer.pictures
    assert not any(came(seen + 2) for _ in range(50))
    viewer.watching.set()
    assert eventually(lambda: came(seen + 3))
    view.close()
    server.close()
    viewer.join(60)
    assert not viewer.is_alive()


def test_what_is_lost_is_the_median_over_pairs_of_neighbours() -> None:
    # The machine's speed changes by half from pair to pair; within a pair one frame in twenty is lost.
    rates = [40.0, 20.0, 30.0] * 4
    found = summary([{"unwatched": side(fps, 10.0), "watched": side(0.95 * fps, 10.5)} for fps in rates])
    assert (found["unwatched"]["fps"], found["watched"]["fps"]) == (30.0, 28.5)
    assert found["fps_lost"] == {"median": 0.05, "low": 0.05, "high": 0.05}
    assert found["cpu_added"] == {"median": 0.05, "low": 0.05, "high": 0.05}
    assert found["latency_added"]["median"] == pytest.approx(1 / 0.95 - 1, abs=1e-4)


def test_the_interval_covers_the_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = median_interval(list(rng.normal(0.02, 0.05, 30)))
        hits += found["low"] <= 0.02 <= found["high"]
    assert hits / 200 > 0.9
    assert median_interval([0.1, 0.2]) == {"median": 0.15, "low": None, "high": None}


class Alternating:
    """In place of an engine: watching costs a tenth."""

    order: ClassVar[list[bool]] = []

    def __init__(self, pace: str, viewers: int, size: str) -> None: ...

    def close(self) -> None: ...

    def window(self, seconds: float, watching: bool) -> dict[str, float]:
        self.order.append(watching)
        return side(45.0 if watching else 50.0, 10.0)


def test_windows_alternate_and_further_runs_add_to_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_cost, "Watched", Alternating)
    out = tmp_path / "cost.json"
    common = ["--pictures", "0", "--paces", "none", "--json", str(out), "--append"]

    def pairs() -> dict[int, int]:
        found: list[dict[str, Any]] = json.loads(out.read_text())["results"]
        assert {result["fps_lost"]["median"] for result in found} == {0.1}
        return {result["viewers"]: len(result["pairs"]) for result in found}

    assert main(["--pairs", "4", "--viewers", "1", *common]) == 0
    assert Alternating.order == [False, True, True, False] * 2
    assert pairs() == {1: 4}
    assert main(["--pairs", "2", "--viewers", "1", *common]) == 0
    assert main(["--pairs", "2", "--viewers", "4", *common]) == 0
    assert pairs() == {1: 6, 4: 2}


@pytest.mark.slow
def test_a_running_engine_is_watched_in_turns(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    common = ["--pictures", "0", "--size", "120x160", "--seconds", "4"]
    assert main(["--paces", "15", "--viewers", "1", "--pairs", "1", *common, "--json", str(out)]) == 0
    ((pair,),) = (result["pairs"] for result in json.loads(out.read_text())["results"])
    assert pair["watched"]["pictures_per_s"] > 0
    # A picture that was on its way when the viewer looked away may be counted.
    assert pair["unwatched"]["pictures_per_s"] < 1
    assert all(pair[name]["cpu_ms_per_frame"] > 0 for name in pair)


def test_an_engine_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "nonsense", "--pictures", "0", "--pairs", "1", "--viewers", "1", "--paces", "none"]
    assert main(arguments) == 3
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]


def test_the_processor_time_of_a_picture_is_measured_without_an_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "cost.json"
    assert main(["--pairs", "0", "--size", "120x160", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["results"] == []
    assert 0 < content["encode_cpu_ms"] < content["picture_cpu_ms"] < 1000
    assert "processor time of a picture" in capsys.readouterr().out
