"""Tracking metrics against hand-computed cases, a brute force over pairings, and a whole run."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import tracking
from benchmarks.davis import Sequence
from benchmarks.tracking_metrics import ALPHAS, Shown, TrackingScore, compare, plain_linking
from engine.errors import SourceError


def video(rows: list[dict[int, int]], overlap: float = 1.0) -> TrackingScore:
    """Frames given as {object: id that covers it}, 0 for none, every object equally large."""
    score = TrackingScore()
    for row in rows:
        truth = np.array(sorted(row), int)
        ids = np.array(sorted({i for i in row.values() if i}), int)
        iou = np.array([[overlap * (row[int(t)] == i) for i in ids] for t in truth], float)
        score.add(Shown(truth, ids, iou.reshape(len(truth), len(ids)), np.full(len(truth), 100)))
    return score


def test_a_perfect_video_scores_one() -> None:
    found = video([{1: 5, 2: 6}] * 10).summary()
    assert found == pytest.approx({"HOTA": 1, "DetA": 1, "AssA": 1, "IDF1": 1, "switches": 0})


def test_an_id_lost_half_way_by_hand() -> None:
    # Each pair counts 5 of the object's 10 frames: A = 5 / 10, and all is detected.
    found = video([{1: 5}] * 5 + [{1: 6}] * 5).summary()
    assert found == pytest.approx({"HOTA": 0.5**0.5, "DetA": 1, "AssA": 0.5, "IDF1": 0.5, "switches": 1})


def test_missed_frames_by_hand() -> None:
    # 6 of 10 frames found: DetA = 6 / 10, A = 6 / 10, IDF1 = 2 * 6 / (10 + 6).
    found = video([{1: 5}] * 6 + [{1: 0}] * 4).summary()
    assert found == pytest.approx({"HOTA": 0.6, "DetA": 0.6, "AssA": 0.6, "IDF1": 0.75, "switches": 0})


def test_hota_counts_a_mask_only_up_to_its_overlap() -> None:
    # Overlap 0.72 reaches the thresholds 0.05 ... 0.70: 14 of 19.
    assert video([{1: 5}] * 4, overlap=0.72).hota()["HOTA"] == pytest.approx(14 / len(ALPHAS))


def test_a_swap_of_two_ids_is_two_switches() -> None:
    assert video([{1: 5, 2: 6}] * 3 + [{1: 6, 2: 5}] * 3).switches() == 2
    assert video([{1: 5}, {1: 0}, {1: 5}]).switches() == 0


def test_idf1_equals_the_best_of_all_pairings() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        score = TrackingScore()
        for _ in range(12):
            shown = np.flatnonzero(rng.random(3) < 0.8)
            ids = np.flatnonzero(rng.random(4) < 0.7)
            iou = rng.random((len(shown), len(ids)))
            score.add(Shown(shown, ids, iou, np.full(len(shown), 9)))
        best = max(
            sum(
                float(f.iou[list(f.truth).index(t), list(f.ids).index(i)] >= 0.5)
                for f in score.frames
                for t, i in enumerate(pairing)
                if t in f.truth and i in f.ids
            )
            for pairing in itertools.permutations(range(4), 3)
        )
        total = sum(len(f.truth) + len(f.ids) for f in score.frames)
        assert score.idf1() == pytest.approx(2 * best / total)


def test_overlaps_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(1)
    truth, ids = rng.integers(0, 4, (20, 30)), rng.integers(0, 3, (20, 30)) * 70_000
    shown = compare(truth, ids, min_area=1)
    for (i, t), (j, p) in itertools.product(enumerate(shown.truth), enumerate(shown.ids)):
        a, b = truth == t, ids == p
        assert shown.iou[i, j] == pytest.approx((a & b).sum() / (a | b).sum())
    assert list(shown.truth) == [1, 2, 3]
    assert list(shown.ids) == [70_000, 140_000]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([{1: 5}] * 10, (1, 1, 0, 0)),
        ([{1: 6}] * 3 + [{1: 5}] * 7, (1, 0, 0, 0)),
        ([{1: 6}] * 10, (0, 0, 1, 0)),
        ([{1: 0}] * 10, (0, 0, 0, 1)),
    ],
)
def test_reentries_by_hand(after: list[dict[int, int]], expected: tuple[int, int, int, int]) -> None:
    found = video([{1: 5, 2: 9}] * 12 + [{2: 9}] * 5 + [{2: 9, **row} for row in after]).reentries()
    assert (found.kept, found.kept_at_once, found.changed, found.uncovered) == expected
    assert found.unknown == 0


def test_short_gaps_first_entries_and_partial_views_are_no_reentries() -> None:
    assert video([{1: 5}] * 3 + [{}] * 4 + [{1: 6}] * 3).reentries().changed == 0
    assert video([{}] * 9 + [{1: 5}] * 3).reentries().kept == 0
    score = video([{1: 5}] * 3 + [{}] * 6 + [{1: 6}] * 9)
    for frame in score.frames[9:]:
        frame.area[:] = 20  # below 30 % of its largest view
    assert score.reentries().changed == 0


def test_plain_linking_follows_overlap_and_nothing_else() -> None:
    def square(left: int, value: int) -> np.ndarray:
        out = np.zeros((20, 60), int)
        out[5:15, left : left + 10] = value
        return out

    maps = [square(5, 7), square(7, 3), square(30, 3), square(30, 3) * 0, square(30, 3)]
    linked = plain_linking(maps)
    assert [int(m.max()) for m in linked] == [1, 1, 2, 0, 3]
    assert all(((a > 0) == (b > 0)).all() for a, b in zip(maps, linked, strict=True))


def test_the_command_scores_the_built_in_scene(default_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "tracking.json"
    assert tracking.main(["--model", str(default_model), "--seeds", "7", "--frames", "12", "--json", str(out)]) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    row = content["built-in scene"]["videos"]["seed 7"]
    assert row["frames"] == 12
    assert 0 <= row["engine"]["HOTA"] <= 1
    # Both kinds of ids are of the same masks.
    assert set(row["engine"]) == set(row["plain linking"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "foo"], 2, "--set foo: must be KEY=VALUE"),
        (["--set", "foo.bar=1"], 2, "unknown configuration key"),
        (["--seeds", "", "--json", "{tmp}/file/t.json"], 5, "--json"),
    ],
)
def test_what_cannot_run_is_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert tracking.main([argument.format(tmp=tmp_path) for argument in arguments]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


@pytest.mark.parametrize("arguments", [["--frames", "0"], ["--seeds", "a"], ["--seeds", "1,-2"]])
def test_numbers_that_are_none_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tracking.main(arguments)
    assert caught.value.code == 2
    assert "whole number" in capsys.readouterr().err


def test_annotated_frames_are_those_of_the_sequence(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("0.png", "1.png")]
    truths = [np.array([[0, 1], [2, 200]], np.uint8), np.array([[[0, 0, 0], [1, 2, 3]]], np.uint8)]
    for path, truth in zip(paths, truths, strict=True):
        assert cv2.imwrite(str(path), truth)
    (gray, colours) = tracking.annotated_frames(Sequence("two", paths, paths))
    assert gray[1].tolist() == [[0, 1], [2, 200]]
    assert colours[1].tolist() == [[0, 1 + 256 * 2 + 65536 * 3]]
    paths[1].write_bytes(b"")
    with pytest.raises(SourceError, match=r"1\.png: not a readable image"):
        list(tracking.annotated_frames(Sequence("two", paths, paths)))


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tracking.main(["--seeds", "", "--data", str(tmp_path)]) != 0
    assert "JPEGImages" in capsys.readouterr().err
