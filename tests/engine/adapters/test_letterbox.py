"""Pictures that keep their shape: where they lie, and the way back to the frame."""

import cv2
import numpy as np
import pytest

from engine.errors import ModelError
from engine.perceive.adapters.letterbox import Content, Letterbox

GREY = (0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("place", "aspect", "content"),
    [
        ("centre", 16 / 9, Content(140, 0, 360, 640)),
        ("centre", 9 / 16, Content(0, 140, 640, 360)),
        ("corner", 16 / 9, Content(0, 0, 360, 640)),
        ("corner", 1.0, Content(0, 0, 640, 640)),
        ("stretch", 16 / 9, Content(0, 0, 640, 640)),
    ],
)
def test_frames_keep_their_shape_inside_a_square(place: str, aspect: float, content: Content) -> None:
    assert Letterbox((640, 640), place, GREY).content(aspect) == content


def test_a_letterboxed_frame_is_the_frame_resized_with_bars_around_it() -> None:
    rng = np.random.default_rng(0)
    frame = cv2.resize(rng.random((30, 53, 3), np.float32), (854, 480), interpolation=cv2.INTER_CUBIC)
    box = Letterbox((320, 320), "centre", GREY)
    stretched = cv2.resize(frame, (320, 320), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)[None].copy()
    content = box.content(854 / 480)
    put = box.put(stretched, content)[0].transpose(1, 2, 0)
    assert content == Content(70, 0, 180, 320)
    direct = cv2.resize(frame, (320, 180), interpolation=cv2.INTER_AREA)
    assert np.abs(put[70:250] - direct).mean() < 0.005
    assert (put[:70] == np.float32(GREY)).all()
    assert (put[250:] == np.float32(GREY)).all()


def test_a_frame_of_the_inputs_shape_is_passed_on_untouched() -> None:
    box = Letterbox((360, 640), "centre", GREY)
    image = np.zeros((1, 3, 360, 640), np.float32)
    assert box.put(image, box.content(854 / 480)) is image


def test_the_grids_centres_are_spread_over_the_frame_alone() -> None:
    y, x = Content(140, 0, 360, 640).centres((4, 8))
    assert y == pytest.approx([185, 275, 365, 455])
    assert x[[0, -1]] == pytest.approx([40, 600])


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ModelError, match="centre, corner, stretch"):
        Letterbox((64, 64), "left", GREY)
