"""The overlay shows what the label map says and nothing else."""

import numpy as np

from streaming.overlay import draw_overlay, object_colour
from tests.streaming.scenes import make_object


def gray_image(h: int = 120, w: int = 160) -> np.ndarray:
    return np.full((h, w, 3), 100, np.uint8)


def test_objects_are_tinted_in_their_colour_and_the_rest_is_left_alone():
    image = gray_image()
    labels = np.zeros((120, 160), np.uint16)
    labels[20:100, 40:120] = 300
    before = image.copy()
    drawn = draw_overlay(image, labels, [make_object(5, 300, box=(40, 20, 120, 100))], scale=0.5)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == (60, 80, 3)
    np.testing.assert_array_equal(drawn[:8], 100)
    np.testing.assert_array_equal(drawn[:, :18], 100)
    expected = 0.55 * 100 + 0.45 * np.array(object_colour(5))
    np.testing.assert_allclose(drawn[40, 40], expected, atol=1.5)
    np.testing.assert_array_equal(drawn[49, 40], object_colour(5))  # the contour is not mixed


def test_labels_without_an_object_are_not_drawn():
    labels = np.full((120, 160), 2, np.uint16)
    np.testing.assert_array_equal(draw_overlay(gray_image(), labels, [], scale=1.0), gray_image())


def test_a_label_map_on_a_smaller_grid_covers_the_same_view():
    labels = np.zeros((30, 40), np.uint16)
    labels[15:, :] = 1
    drawn = draw_overlay(gray_image(), labels, [make_object(3, 1, box=(0, 60, 160, 120))], scale=1.0)
    np.testing.assert_array_equal(drawn[:55], 100)
    assert (drawn[100] != 100).any(axis=1).all()


def test_neighbouring_ids_have_colours_far_apart_and_one_id_keeps_its_colour():
    for first in (0, 1, 50, 2**40):
        a, b = np.array(object_colour(first), int), np.array(object_colour(first + 1), int)
        assert np.abs(a - b).sum() > 150
    assert object_colour(12) == object_colour(12)


def test_ids_are_as_large_a_part_of_a_large_picture_as_of_a_small_one():
    shares = []
    for height, width in ((360, 640), (1080, 1920)):
        labels = np.zeros((height, width), np.uint16)
        labels[0, 0] = 1
        item = make_object(28, 1, box=(width // 4, height // 4, width // 2, height // 2))
        drawn = draw_overlay(gray_image(height, width), labels, [item], scale=1.0)
        rows = np.flatnonzero((drawn[1:] > 150).all(axis=2).any(axis=1))
        shares.append((rows[-1] - rows[0] + 1) / height)
    assert 0.8 < shares[1] / shares[0] < 1.25
    assert shares[1] > 0.02


def test_labels_at_the_border_do_not_push_the_text_out_of_the_image():
    labels = np.ones((120, 160), np.uint16)
    drawn = draw_overlay(gray_image(), labels, [make_object(123456, 1, box=(158, 118, 160, 120))], scale=0.5)
    assert (drawn == 255).all(axis=2).any()
