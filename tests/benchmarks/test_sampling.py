"""The comparison of sampling policies: its measures against counts by hand, and a small real run."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sampling import Seen, compare, detected, main, measure, overlaps
from engine.percepts import Percepts


def test_overlaps_are_those_of_the_masks() -> None:
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 4, (2, 30, 40)).astype(np.uint16)
    expected = {
        (a, b): ((labels == a) & (truth == b)).sum() / ((labels == a) | (truth == b)).sum()
        for a in range(1, 4)
        for b in range(1, 4)
    }
    assert overlaps(labels, truth) == pytest.approx(expected)
    assert overlaps(np.zeros((3, 3), np.uint16), np.ones((3, 3), np.uint16)) == {}


def test_an_object_is_detected_when_a_sure_candidate_covers_it() -> None:
    truth = np.zeros((64, 112), np.uint16)
    truth[8:24, 8:40], truth[40:56, 60:100] = 5, 9
    masks = np.stack([truth == 5, truth == 9])
    percepts = Percepts(
        masks, np.array([0.8, 0.4], np.float32), np.ones((64, 112), np.float32), None, None, None, masks * 1.0
    )
    assert detected(percepts, truth) == {5}


def seen(index: int, found: set[int], missed: set[int], certified: bool = True) -> Seen:
    def named(ids: set[int]) -> frozenset[tuple[str, int]]:
        return frozenset(("a", i) for i in ids)

    return Seen(("a", index), certified, 3, named({1, 2, 3, 4}), named(found), named(missed))


def test_the_measures_count_labels_objects_and_what_teaches() -> None:
    kept = [seen(0, {1, 2}, {2, 3}), seen(1, {2}, {1})]
    assert measure(kept) == {"correct": 3 / 6, "complete": 3 / 8, "objects": 2.0, "taught": 0.5}
    assert measure([]) == {"correct": 0.0, "complete": 0.0, "objects": 0.0, "taught": 0.0}


def test_a_store_that_knows_what_teaches_is_told_from_chance() -> None:
    frames = [seen(i, {1, 2}, {2} if i < 10 else set(), certified=i % 2 == 0) for i in range(100)]
    result = compare(frames, [("a", i) for i in range(20)], draws=300)
    row = result["5%"]
    assert (row["frames"], row["store"]["taught"]) == (5, 1.0)
    assert row["random"]["taught"] == pytest.approx(0.1, abs=0.03)
    # Five of a hundred without replacement, a tenth of which teaches.
    assert row["random spread"]["taught"] == pytest.approx((0.1 * 0.9 / 5 * 95 / 99) ** 0.5, rel=0.2)
    assert row["gain"]["taught"] == pytest.approx(1 / row["random"]["taught"])
    assert row["z"]["taught"] > 5
    assert abs(row["z"]["correct"]) < 1e-6


def test_a_small_run_reports_every_policy_and_budget(tmp_path: Path, motion_model: Path) -> None:
    out = tmp_path / "sampling.json"
    arguments = ["--seeds", "300", "--frames", "25", "--draws", "5", "--model", str(motion_model), "--json", str(out)]
    assert main(arguments) == 0
    content = json.loads(out.read_text())
    assert content["finals"] == 25
    assert set(content["budgets"]) == {"5%", "10%", "20%"}
    for row in content["budgets"].values():
        for policy in ("store", "interval", "random", "random certified"):
            assert set(row[policy]) == {"correct", "complete", "objects", "taught"}
            assert 0 <= row[policy]["correct"] <= 1
