"""The baselines label as their papers say, checked on masks small enough to count by hand."""

import itertools

import cv2
import numpy as np
import pytest

from learning.average_precision import Answer
from learning.baselines import (
    SoftAnswer,
    above_threshold,
    augmented,
    best_threshold,
    instance_masks,
    matching_threshold,
    overlaps,
    selected_by_truth,
    tracked,
    truth_itself,
    without_copies,
)

SIZE = (32, 64)


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + h, x : x + w] = True
    return mask


def answer(*found: tuple[np.ndarray, float]) -> Answer:
    masks = np.array([mask for mask, _ in found], bool).reshape(-1, *SIZE)
    return Answer(masks, np.array([score for _, score in found]))


def test_overlaps_are_the_intersection_over_the_union() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((4, *SIZE)) < 0.4, rng.random((3, *SIZE)) < 0.6
    expected = [[(p & q).sum() / (p | q).sum() for q in b] for p in a]
    np.testing.assert_allclose(overlaps(a, b), expected, rtol=1e-6)
    assert overlaps(a, b[:0]).shape == (4, 0)


def test_copies_and_what_scores_low_are_left_out() -> None:
    found = answer(
        (box(0, 0, 10, 10), 0.4), (box(0, 0, 10, 9), 0.9), (box(30, 0, 10, 10), 0.6), (box(50, 0, 5, 5), 0.2)
    )
    kept = without_copies(found, 0.5)
    assert kept.scores.tolist() == [0.9, 0.6, 0.2]
    assert above_threshold(found, 0.5).scores.tolist() == [0.9, 0.6]
    assert above_threshold(answer(), 0.5).masks.shape == (0, *SIZE)


def test_best_threshold_is_the_one_with_the_best_f1_among_all() -> None:
    rng = np.random.default_rng(1)
    truths, answers = [], []
    for _ in range(12):
        truth = np.zeros(SIZE, np.uint8)
        truth[2:12, 2:12], truth[2:12, 40:50] = 1, 2
        real = [(box(2, 2, 10, 10), rng.uniform(0.3, 1)), (box(40, 2, 10, 10), rng.uniform(0.3, 1))]
        false = [(box(20, 20, 8, 8), rng.uniform(0, 0.7)), (box(2, 20, 8, 8), rng.uniform(0, 0.7))]
        truths.append(truth)
        answers.append(answer(*real, *false))

    def f1(threshold: float) -> float:
        kept = [above_threshold(a, threshold) for a in answers]
        hits = sum(
            int((overlaps(k.masks, instance_masks(t)) > 0.5).any(axis=1).sum())
            for k, t in zip(kept, truths, strict=True)
        )
        return 2 * hits / (sum(len(k.scores) for k in kept) + 24)

    everything = np.concatenate([a.scores for a in answers])
    assert f1(best_threshold(answers, truths)) == pytest.approx(max(f1(t) for t in everything))


def test_without_any_hit_the_threshold_is_one_half() -> None:
    assert best_threshold([answer((box(0, 0, 4, 4), 0.9))], [np.zeros(SIZE, np.uint8)]) == 0.5


def test_matching_threshold_keeps_the_wanted_number_per_image() -> None:
    rng = np.random.default_rng(2)
    answers = [answer(*((box(0, 0, 3, 3), float(s)) for s in rng.random(7))) for _ in range(10)]
    threshold = matching_threshold(answers, 2.5)
    assert sum(int((a.scores >= threshold).sum()) for a in answers) == 25
    assert matching_threshold([answer()], 2.5) == 1.0


def test_augmentation_maps_every_view_back_and_doubts_what_one_view_sees() -> None:
    """A detector that finds the bright square in every view, and a ghost in the plain view of the first size only."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[4:16, 6:18] = 255
    asked: list[tuple[int, ...]] = []

    def ask(view: np.ndarray) -> SoftAnswer:
        asked.append(view.shape[:2])
        square = (view[..., 0] > 127).astype(np.float32)
        if len(asked) > 1:
            return SoftAnswer(square[None], np.array([0.8]))
        return SoftAnswer(np.stack([square, box(40, 4, 12, 12).astype(np.float32)]), np.array([0.8, 0.9]))

    merged = augmented(ask, image, [SIZE, (64, 128)])
    assert asked == [SIZE, SIZE, (64, 128), (64, 128)]
    assert merged.scores == pytest.approx([0.8, 0.9 / 4])
    assert overlaps(merged.masks[:1], box(6, 4, 12, 12)[None])[0, 0] > 0.95


def test_augmentation_of_nothing_is_nothing() -> None:
    empty = SoftAnswer(np.zeros((0, *SIZE), np.float32), np.zeros(0))
    assert augmented(lambda view: empty, np.zeros((*SIZE, 3), np.uint8), [SIZE]).masks.shape == (0, *SIZE)


def test_tracking_keeps_what_lasts_and_gives_it_its_mean_score() -> None:
    frames = [
        answer((box(2 + t, 4, 12, 12), 0.9 if t == 0 else 0.4), *([(box(44, 10, 10, 10), 0.95)] if t in (1, 2) else []))
        for t in range(5)
    ]
    found = tracked(frames, start=0.5, carry=0.3, min_frames=3)
    assert [len(a.scores) for a in found] == [1] * 5
    assert found[0].scores[0] == pytest.approx((0.9 + 4 * 0.4) / 5)
    assert found[3].masks[0][4, 5]
    assert not found[3].masks[0][4, 4]


def test_tracks_begin_only_above_the_first_threshold_and_break_in_a_gap() -> None:
    weak = [answer((box(2, 4, 12, 12), 0.4)) for _ in range(4)]
    assert all(len(a.scores) == 0 for a in tracked(weak, 0.5, 0.3, 2))
    gap = [
        answer((box(2, 4, 12, 12), 0.9)),
        answer((box(2, 4, 12, 12), 0.9)),
        answer(),
        answer((box(2, 4, 12, 12), 0.9)),
    ]
    assert [len(a.scores) for a in tracked(gap, 0.5, 0.3, 2)] == [1, 1, 0, 0]


def test_tracking_follows_fast_objects_where_their_motion_is_known() -> None:
    fast = [answer((box(2 + 14 * t, 4, 12, 12), 0.9)) for t in range(4)]
    assert all(len(a.scores) == 0 for a in tracked(fast, 0.5, 0.3, 2))
    carried = tracked(fast, 0.5, 0.3, 2, move=lambda t, masks: np.roll(masks, 14, axis=2))
    assert [len(a.scores) for a in carried] == [1] * 4


def test_selection_by_truth_is_the_best_assignment_of_all() -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros(SIZE, np.uint8)
    for value, (x, y) in enumerate([(2, 2), (14, 4), (40, 12)], 1):
        truth[box(x, y, 12, 12)] = value
    jitter = rng.integers(-4, 5, (8, 2))
    centres = [(2, 2), (14, 4), (40, 12), (2, 2), (14, 4), (40, 12), (28, 2), (50, 2)]
    boxes = [box(max(0, x + dx), max(0, y + dy), 12, 12) for (x, y), (dx, dy) in zip(centres, jitter, strict=True)]
    candidates = answer(*((mask, 0.5) for mask in boxes))
    chosen = selected_by_truth(candidates, truth, min_iou=0.0)
    iou = overlaps(candidates.masks, instance_masks(truth))
    best = max(sum(iou[i, k] for k, i in enumerate(order)) for order in itertools.permutations(range(8), 3))
    real = overlaps(chosen.masks, instance_masks(truth))
    assert max(sum(real[i, k] for k, i in enumerate(o)) for o in itertools.permutations(range(3))) == pytest.approx(
        best
    )
    assert len(selected_by_truth(candidates, np.zeros(SIZE, np.uint8)).scores) == 0


def test_training_on_truth_takes_every_instance() -> None:
    truth = cv2.resize(np.array([[0, 1], [5, 9]], np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    found = truth_itself(truth)
    assert found.scores.tolist() == [1, 1, 1]
    assert (found.masks.sum(axis=0) == (truth > 0)).all()
