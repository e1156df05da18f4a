"""Overlap, contours and the figures of a sequence on cases small enough to work out by hand."""

import math

import numpy as np
import pytest

from benchmarks.footage import moving_pixels
from benchmarks.measures import (
    FrameScore,
    InstanceScore,
    SequenceScore,
    boundary_f,
    contour,
    iou,
    pairwise_iou,
)


def box(y0: int, y1: int, x0: int, x1: int, size: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disk_reference(truth: np.ndarray, output: np.ndarray) -> float:
    """The definition with loops: a contour pixel is right when another lies within the radius."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    ours, theirs = (np.argwhere(contour(m)) for m in (output, truth))
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    distance2 = ((ours[:, None] - theirs[None]) ** 2).sum(axis=2)
    precision = (distance2.min(axis=1) <= radius**2).mean()
    recall = (distance2.min(axis=0) <= radius**2).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def test_identical_masks_agree_in_every_contour_pixel() -> None:
    assert boundary_f(box(20, 60, 30, 70), box(20, 60, 30, 70)) == 1.0


def test_contour_lies_between_unequal_pixels() -> None:
    edge = contour(box(2, 4, 2, 4, (6, 6)))
    # Upper and left side one pixel outside, lower and right side inside: the pixel that differs from a later one.
    expected = np.zeros((6, 6), bool)
    expected[1:4, 1:4] = True
    expected[2, 2] = False
    assert (edge == expected).all()


@pytest.mark.parametrize("shift", [1, 2])
def test_shifts_within_the_tolerance_cost_nothing(shift: int) -> None:
    # 0.8 % of the diagonal of 100 x 100 is 1.13: two pixels.
    assert boundary_f(box(20, 60, 30, 70), box(20, 60, 30 + shift, 70 + shift)) == 1.0


def test_a_shift_beyond_the_tolerance_costs_the_sides_across_it() -> None:
    truth, output = box(20, 60, 30, 70), box(20, 60, 40, 80)
    # A contour of a 40 x 40 box has 160 pixels. Moved by 10, the rows above and below still meet over 31 pixels and
    # within two pixels of their ends; each side also comes near the other box's rows at its two corners.
    assert boundary_f(truth, output) == pytest.approx(disk_reference(truth, output))
    assert 0.4 < boundary_f(truth, output) < 0.6


@pytest.mark.parametrize("seed", range(4))
def test_boundary_measure_is_the_definition_with_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, output = (np.kron(rng.random((8, 9)) < 0.4, np.ones((7, 7))) > 0 for _ in range(2))
    assert boundary_f(truth, output) == pytest.approx(disk_reference(truth, output))


def test_empty_masks_agree_with_each_other_only() -> None:
    empty = np.zeros((50, 50), bool)
    assert boundary_f(empty, empty) == 1.0
    assert boundary_f(empty, box(10, 20, 10, 20, (50, 50))) == 0.0
    assert boundary_f(box(10, 20, 10, 20, (50, 50)), empty) == 0.0
    assert iou(empty, empty) == 1.0


def test_best_id_is_one_id_over_the_whole_sequence() -> None:
    truth = box(0, 10, 0, 10)
    score = SequenceScore()
    score.add(1, truth, truth, truth * 3)  # id 3 is exact here,
    score.add(2, truth, truth, truth * 5)  # id 5 here and half right in the last frame
    score.add(3, truth, truth, box(0, 5, 0, 10) * 5)
    assert score.j_fg == 1.0
    assert score.f_fg == 1.0
    assert score.j_best_id == pytest.approx((0 + 1 + 0.5) / 3)
    assert [frame.best_id for frame in score.frames] == [1.0, 1.0, 0.5]


def test_a_frame_score_counts_pixels() -> None:
    score = SequenceScore().add(7, box(0, 10, 0, 10), box(0, 10, 5, 25), np.zeros((100, 100), int))
    assert (score.index, score.output_px) == (7, 200)
    assert score.j == pytest.approx(50 / 250)
    assert (score.precision, score.recall) == (0.25, 0.5)


def test_pixels_that_do_not_count_change_nothing() -> None:
    truth, valid = box(0, 10, 0, 10), ~box(0, 100, 10, 100)
    score = SequenceScore()
    score.add(1, truth, box(0, 10, 0, 50), box(0, 10, 0, 50) * 2, valid)
    assert score.j_fg == 1.0
    assert score.j_best_id == 1.0


def test_highway_counts_moving_pixels_and_ignores_what_is_not_known() -> None:
    values = np.array([[0, 50, 85, 170, 255]])
    palette = values * (1 + 256 + 65536)  # as a palette file decodes
    for truth in (values, palette):
        moving, valid = moving_pixels(truth)
        assert moving.tolist() == [[False, False, False, False, True]]
        assert valid.tolist() == [[True, True, False, False, True]]
    # An output on everything is wrong on still and shadow, right on moving, not judged on the rest: 1 / 3.
    assert SequenceScore().add(1, moving, np.ones((1, 5), bool), np.ones((1, 5), int), valid).j == pytest.approx(1 / 3)


def figure(**values: float) -> FrameScore:
    return FrameScore(
        **({"index": 1, "j": 0.1, "f": 0.0, "precision": 1, "recall": 1, "best_id": 0.0, "output_px": 9} | values)
    )


@pytest.mark.parametrize(
    ("score", "cause"),
    [
        (figure(j=0.0, output_px=0), "nothing found"),
        (figure(j=0.0, output_px=0, best_id=0.7), "found, not foreground"),
        (figure(j=0.4, best_id=0.2), "split"),
        (figure(j=0.2, precision=0.9, recall=0.2, best_id=0.2), "missed"),
        (figure(j=0.2, precision=0.2, recall=0.9, best_id=0.2), "leaked"),
    ],
)
def test_causes(score: FrameScore, cause: str) -> None:
    assert score.cause == cause


def test_pairwise_overlap_is_the_overlap_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 9, 11)) < 0.5, rng.random((4, 9, 11)) < 0.5
    a[0], b[0] = False, False
    expected = [[iou(x, y) for y in b] for x in a]
    assert pairwise_iou(a, b) == pytest.approx(np.array(expected))
    assert pairwise_iou(a, b[:0]).shape == (3, 0)


def test_instances_choose_candidates_per_frame_and_one_id_for_all_frames() -> None:
    left, right = box(0, 10, 0, 10), box(0, 10, 50, 60)
    score = InstanceScore()
    # Both instances annotated; the candidates hold both, published is only the left one, as id 4 and then id 9.
    score.add(left * 1 + right * 2, np.stack([left, right]), left * 4)
    score.add(left * 1 + right * 2, np.stack([left]), left * 9)
    # The right one is not annotated here: the frame counts for the left one alone, which is half covered.
    score.add(left * 1, np.stack([box(0, 5, 0, 10)]), box(0, 5, 0, 10) * 9)
    one, two = score.per_instance()
    assert (one["frames"], two["frames"]) == (3, 2)
    assert one["best_candidate"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert one["best_mask"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert one["best_id"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert (two["best_candidate"], two["best_mask"], two["best_id"]) == (0.5, 0.0, 0.0)
    assert score.means()["best_candidate"] == pytest.approx((2.5 / 3 + 0.5) / 2)
