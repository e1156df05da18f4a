"""Masks carried along the flow: where they land, and when they die."""

import cv2
import numpy as np
import pytest
import scipy.ndimage

from engine.seeds.propagate import UNCONFIRMED_LIFE_FRAMES, Propagator

SHAPE = (24, 40)


def box(x: int) -> np.ndarray:
    logits = np.full(SHAPE, -3.0, np.float32)
    logits[8:16, x : x + 8] = 3.0
    return logits


def flow(dx: float) -> np.ndarray:
    """Everything moved right by dx: backward flow is -dx."""
    out = np.zeros((2, *SHAPE), np.float32)
    out[0] = -dx
    return out


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())


def test_a_mask_arrives_where_the_flow_takes_it_however_long_its_commit_took() -> None:
    for lag in (0, 1, 5):
        carrier = Propagator()
        carrier.candidates(0, flow(0))
        for step in range(1, lag + 1):
            carrier.candidates(step, flow(2))
        carrier.commit(0, {3: (box(4), 0.8, 0)})
        (found,) = carrier.candidates(lag + 1, flow(2))
        assert found.identity == 3
        assert iou(found.logits, box(4 + 2 * (lag + 1))) == 1.0


def test_values_between_pixels_are_bilinear() -> None:
    rng = np.random.default_rng(5)
    logits = np.clip(cv2.GaussianBlur(rng.normal(0, 12, SHAPE).astype(np.float32), (0, 0), 1.5), -6, 6)
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (logits, 0.8, 0)})
    # The same everywhere: nothing is uncovered, so no trail is cut off.
    moving = np.broadcast_to(np.array([-1.3, 0.6], np.float32).reshape(2, 1, 1), (2, *SHAPE)).copy()
    (found,) = carrier.candidates(1, moving)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(np.float32)
    expected = scipy.ndimage.map_coordinates(np.pad(logits, 4, constant_values=-6), [y + 0.6 + 4, x - 1.3 + 4], order=1)
    np.testing.assert_allclose(found.logits, expected, atol=1e-4)


def test_fractions_of_a_pixel_add_up() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0)})
    for step in range(1, 8):
        (found,) = carrier.candidates(step, flow(0.5))
    assert iou(found.logits, box(4 + 4)) > 0.85


def test_what_comes_from_outside_the_frame_is_outside_the_mask() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (np.full(SHAPE, 3.0, np.float32), 0.8, 0)})
    (found,) = carrier.candidates(1, flow(10))
    assert not (found.logits[:, :10] > 0).any()
    assert (found.logits[:, 10:] > 0).all()


def test_without_confirmation_the_score_falls_and_the_mask_is_gone_after_its_life() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0)})
    scores = []
    for step in range(1, UNCONFIRMED_LIFE_FRAMES):
        (found,) = carrier.candidates(step, flow(0))
        scores.append(found.score(step, 1.0))
        # It was even selected again and again: that is no confirmation.
        carrier.commit(step, {1: (found.logits, 0.8, found.confirmed)})
    assert (np.diff([0.8, *scores]) < 0).all()
    assert carrier.candidates(UNCONFIRMED_LIFE_FRAMES, flow(0)) == []
    assert carrier.candidates(UNCONFIRMED_LIFE_FRAMES + 1, flow(0)) == []


def test_confirmation_starts_its_life_again() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0)})
    for step in range(1, 3 * UNCONFIRMED_LIFE_FRAMES):
        (found,) = carrier.candidates(step, flow(0))
        carrier.confirm(1, step)
    assert found.score(step, 1.0) > 0.5


def test_an_object_missing_from_a_commit_is_carried_on() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0), 2: (box(20), 0.7, 0)})
    carrier.candidates(1, flow(3))
    carrier.commit(1, {2: (box(23), 0.7, 1)})
    found = {item.identity: item for item in carrier.candidates(2, flow(3))}
    assert iou(found[1].logits, box(10)) == 1.0
    assert iou(found[2].logits, box(26)) == 1.0
    assert found[1].score(2, 0.5) == pytest.approx(0.5 * 0.8 * (1 - 2 / UNCONFIRMED_LIFE_FRAMES))


def test_a_frame_without_flow_ends_everything() -> None:
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0)})
    assert carrier.candidates(1, None) == []
    assert carrier.candidates(2, flow(0)) == []


def test_ground_that_the_object_uncovers_is_not_dragged_along() -> None:
    """Only the box moves; behind it the flow is that of the ground and points into the old mask."""
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(4), 0.8, 0)})
    for step in range(1, 7):
        only_box = np.where(box(4 + 2 * step) > 0, flow(2), 0).astype(np.float32)
        (found,) = carrier.candidates(step, only_box)
        assert iou(found.logits, box(4 + 2 * step)) == 1.0


def test_an_object_that_comes_closer_keeps_its_inside() -> None:
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(np.float32)
    grow = np.stack([(x - 20) * (1 / 1.08 - 1), (y - 12) * (1 / 1.08 - 1)]).astype(np.float32)
    carrier = Propagator()
    carrier.candidates(0, flow(0))
    carrier.commit(0, {1: (box(16), 0.8, 0)})
    for step in range(1, 6):
        (found,) = carrier.candidates(step, grow)
    scale = 1.08**5
    expected = (abs(x - 19.5) < 4 * scale) & (abs(y - 11.5) < 4 * scale)
    assert iou(found.logits, np.where(expected, 1.0, -1.0)) > 0.85
