"""Label maps: no overlap, the right owner, the right place at frame size."""

import dataclasses

import cv2
import numpy as np
import pytest

from engine.compose import boxes_and_areas, render_labels
from tests.engine.test_propose import GRID, disc, percepts

FRAME = (480, 854)


def test_a_disc_lands_where_it_is_in_the_frame() -> None:
    mask = disc(30, 50, 12)
    found = percepts([mask], [0.9], np.where(mask, 0.1, 0.9))
    labels = render_labels(found, (0,), [7], FRAME)
    y, x = np.nonzero(labels == 7)
    sy, sx = FRAME[0] / GRID[0], FRAME[1] / GRID[1]
    assert y.mean() == pytest.approx((30 + 0.5) * sy - 0.5, abs=1.5)
    assert x.mean() == pytest.approx((50 + 0.5) * sx - 0.5, abs=1.5)
    assert len(y) == pytest.approx(mask.sum() * sy * sx, rel=0.05)
    assert set(np.unique(labels)) == {0, 7}


@pytest.mark.parametrize("stronger", [0, 1])
def test_where_masks_overlap_the_lower_background_logit_owns(stronger: int) -> None:
    left, right = disc(30, 45, 12), disc(30, 60, 12)
    background = np.full(GRID, 0.9)
    background[left | right] = 0.4
    background[(right if stronger else left) & ~(left & right)] = 0.05
    labels = render_labels(percepts([left, right], [0.9, 0.9], background), (0, 1), [1, 2], FRAME)
    middle = labels[int(30.5 * 7.5), int(52.5 * 7.625)]
    assert middle == stronger + 1


def interpolated(logits: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Bilinear values at every pixel centre of the frame, pixel by pixel: the definition."""
    out = np.empty(frame_size)
    for y in range(frame_size[0]):
        for x in range(frame_size[1]):
            v, u = (
                np.clip((p + 0.5) * n / size - 0.5, 0, n - 1)
                for p, n, size in zip((y, x), logits.shape, frame_size, strict=True)
            )
            r, c = int(v), int(u)
            corners = logits[np.ix_([r, min(r + 1, len(logits) - 1)], [c, min(c + 1, logits.shape[1] - 1)])]
            out[y, x] = (corners * np.outer([1 - v + r, v - r], [1 - u + c, u - c])).sum()
    return out


@pytest.mark.parametrize("frame_size", [(96, 168), (50, 40), (61, 163)])
def test_borders_are_where_the_interpolated_logits_change_sign(frame_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    found = percepts([disc(30, 50, 12)], [0.9], np.full(GRID, 0.5))
    logits = cv2.GaussianBlur(rng.standard_normal((1, *GRID)).astype(np.float32)[0], (0, 0), 1.5)
    found = dataclasses.replace(found, logits=logits[None], masks=logits[None] > 0)
    value = interpolated(logits, frame_size)
    labels = render_labels(found, (0,), [5], frame_size)
    clear = np.abs(value) > 1e-6
    np.testing.assert_array_equal(labels[clear] == 5, value[clear] > 0)


def test_masks_at_the_border_fill_the_frame_to_its_edge() -> None:
    mask = np.zeros(GRID, bool)
    mask[40:, 90:] = True
    labels = render_labels(percepts([mask], [0.9], np.full(GRID, 0.5)), (0,), [3], (250, 333))
    assert labels[-1, -1] == 3
    assert labels[0, 0] == 0


def test_empty_selection_is_all_background() -> None:
    labels = render_labels(percepts([], [], np.full(GRID, 0.9)), (), [], FRAME)
    assert labels.shape == FRAME
    assert labels.dtype == np.uint16
    assert not labels.any()


def test_boxes_are_half_open_and_absent_values_are_left_out() -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[3:7, 5:9] = 4
    labels[19, 29] = 9
    assert boxes_and_areas(labels, [4, 9, 11]) == {4: ((5, 3, 9, 7), 16), 9: ((29, 19, 30, 20), 1)}


@pytest.mark.parametrize("size", [(48, 64), (31, 53), (40, 62), (5, 3), (1, 4)])
def test_boxes_and_areas_are_those_of_each_value(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[1])
    labels = np.zeros(size, np.uint16)
    for value in (2, 9, 65535, 256, 9):
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        labels[y : y + rng.integers(1, 20), x : x + rng.integers(1, 30)] = value
    labels[-1, -1] = 7
    values = [2, 7, 9, 256, 65535]
    for picture in (labels, np.asfortranarray(labels)):
        found = boxes_and_areas(picture, values)
        assert set(found) == set(np.unique(labels).tolist()) - {0}
        for value, (box, area) in found.items():
            y, x = np.nonzero(labels == value)
            assert box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert area == len(y)
