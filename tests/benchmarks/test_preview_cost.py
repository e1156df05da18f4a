"""The viewers of the cost benchmark really watch, and what is lost is computed from neighbours in time."""

import pytest

from benchmarks import preview_cost
from benchmarks.preview_cost import Viewer, main, measure
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

    assert eventually(three_came, 20)
    assert viewer.bytes > 3000
    view.close()
    server.close()
    viewer.join(20)
    assert not viewer.is_alive()


def test_what_is_lost_is_the_median_over_runs_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {-1: iter([40.0, 20.0, 30.0]), 1: iter([38.0, 18.0, 30.0])}

    def run_once(source: str, frames: int, viewers: int) -> dict[str, float]:
        return {"fps": next(rates[viewers]), "total_p50_ms": 25.0, "pictures_per_s": 10.0, "kb_per_s": 200.0}

    monkeypatch.setattr(preview_cost, "run_once", run_once)
    plain, watched = measure("demo", 100, 3, [1])["variants"]
    assert (plain["viewers"], plain["fps"], plain["lost"]) == (None, 30.0, 0.0)
    assert (watched["viewers"], watched["fps"], watched["lost"]) == (1, 30.0, 0.05)


def test_an_engine_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", "absent.mp4", "--frames", "20", "--runs", "1", "--viewers", "1"]) == 3
    assert "absent.mp4" in capsys.readouterr().err.splitlines()[-1]
