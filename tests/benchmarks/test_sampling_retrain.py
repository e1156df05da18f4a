"""Which frames each row learns from, and what is made of its scores; training itself is tested elsewhere."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from benchmarks.sampling_retrain import Mined, choices, itinerary, main, summary
from benchmarks.unseen.training import IGNORED_ID, LabelledFrame


def _frame(value: int) -> LabelledFrame:
    return LabelledFrame(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), value, np.uint8))


def _mined() -> Mined:
    frames = {("video 0", i): _frame((0, 1, IGNORED_ID)[i % 3]) for i in range(30)}
    return Mined(frames, [("video 0", i) for i in (4, 1, 7)])


def test_all_rows_keep_as_many_frames_and_only_one_pool_is_certified() -> None:
    mined = _mined()
    rows = choices(mined, 3, 2, seed=5)
    assert {len(keys) for keys in rows.values()} == {3}
    assert rows["store"] == mined.ranked
    assert mined.labelled == [("video 0", i) for i in range(1, 30, 3)]
    drawn = [key for draw in range(200) for key in choices(mined, 3, 1, draw)["random certified 0"]]
    assert set(drawn) == set(mined.labelled)
    everything = [key for draw in range(200) for key in choices(mined, 3, 1, draw)["random 0"]]
    assert set(everything) == set(mined.frames)
    assert choices(mined, 3, 2, seed=5) == rows
    assert rows["random 0"] != rows["random 1"]


def test_the_gain_is_that_over_the_mean_of_the_random_draws() -> None:
    def row(value: float) -> dict[str, float]:
        return {"unseen": value, "seen": 0.0}

    def seed(*values: float) -> dict[str, object]:
        names = ("before", "store", "random 0", "random 1", "random certified 0")
        return {"rows": dict(zip(names, map(row, values), strict=True))}

    found = summary({0: seed(20, 24, 21, 23, 25), 1: seed(10, 13, 13, 13, 12)})
    assert found["seeds"]["0"] == {"before": 20, "store": 24, "random": 22, "random certified": 25, "store - random": 2}
    assert found["gain"] == pytest.approx(1.0)
    assert found["standard_error"] == pytest.approx(1.0)  # of 2 and 0
    assert summary({0: seed(20, 24, 21, 23, 25)})["standard_error"] is None


def test_a_route_comes_again_to_few_places_and_seldom_to_the_others() -> None:
    assert itinerary(4, None, 0) == [0, 1, 2, 3]
    route = itinerary(10, 20_000, 0)
    counts = np.bincount(route, minlength=10)
    expected = 20_000 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())
    assert itinerary(10, 50, 1) == itinerary(10, 50, 1) != itinerary(10, 50, 2)


def test_without_a_world_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--work", str(tmp_path), "--data", str(tmp_path)]) == 3
    assert "benchmarks.unseen" in capsys.readouterr().err
