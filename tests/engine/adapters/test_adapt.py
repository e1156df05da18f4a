"""Which kind of model a file is taken for, and what is said when it is not."""

import numpy as np
import pytest

from engine.errors import ModelError
from engine.perceive.adapters.adapt import adapt, recognise
from engine.perceive.adapters.mask_rcnn import MaskRcnnRunner
from engine.perceive.adapters.prototype import PrototypeRunner
from engine.perceive.network import Network
from tests.engine.adapters.raw import GivenRunner

SIZE = (64, 96)


def runner(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> GivenRunner:
    return GivenRunner(SIZE, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, metadata)


MASK_RCNN = {"boxes": (9, 4), "labels": (9,), "scores": (9,), "masks": (9, 1, 28, 28)}
UNNAMED = dict(zip("abcd", MASK_RCNN.values(), strict=True))
YOLO = {"output0": (1, 37, 126), "output1": (1, 32, 16, 24)}
YOLACT = {"loc": (1, 99, 4), "conf": (1, 99, 81), "mask": (1, 99, 32), "proto": (1, 16, 24, 32)}
OURS = {"masks": (1, 9, 16, 28), "scores": (1, 9), "background": (1, 1, 16, 28), "embedding": (1, 4, 16, 28)}


@pytest.mark.parametrize(
    ("shapes", "metadata", "taken_for"),
    [
        (MASK_RCNN, {}, "maskrcnn"),
        (UNNAMED, {}, "maskrcnn"),
        (YOLO, {}, "prototype"),
        (YOLACT, {}, "prototype"),
        (OURS, {}, "unseen"),
        ({"masks": (1, 9, 16, 28), "scores": (1, 9)}, {}, "unseen"),
        (YOLO, {"contract": "1"}, "unseen"),
        (OURS, {"format": "prototype"}, "prototype"),
        ({"classes": (1, 1000)}, {}, "unseen"),
    ],
)
def test_models_are_known_by_what_they_say_or_look_like(
    shapes: dict[str, tuple[int, ...]], metadata: dict[str, str], taken_for: str
) -> None:
    assert recognise(runner(shapes, metadata)) == taken_for


def test_the_format_asked_for_is_taken_and_models_of_the_contract_are_left_alone() -> None:
    ours = runner(OURS)
    assert adapt(ours, "auto", "m") is ours
    assert adapt(runner(YOLO), "unseen", "m").outputs.keys() == YOLO.keys()
    assert isinstance(adapt(runner(MASK_RCNN), "maskrcnn", "m"), MaskRcnnRunner)
    assert isinstance(adapt(runner(YOLACT), "prototype", "m"), PrototypeRunner)


@pytest.mark.parametrize(
    ("shapes", "metadata", "wanted", "says"),
    [
        (YOLO, {}, "maskrcnn", "boxes [n, 4], scores [n] and masks"),
        (MASK_RCNN, {}, "prototype", "outputs are boxes [9, 4]"),
        (YOLO, {}, "yolo", "auto, unseen, maskrcnn, prototype"),
        (YOLO, {"letterbox": "left"}, "auto", "centre, corner, stretch"),
        (YOLO, {"proposals": "many"}, "auto", "'proposals'"),
        (YOLO, {"normalisation": "{"}, "auto", "'normalisation'"),
        (YOLO, {"normalisation": '{"mean": [0, 0], "std": [1, 1], "scale": 1}'}, "auto", "'normalisation'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    shapes: dict[str, tuple[int, ...]], metadata: dict[str, str], wanted: str, says: str
) -> None:
    with pytest.raises(ModelError) as error:
        adapt(runner(shapes, metadata), wanted, "model.onnx")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "metadata", "says"),
    [
        ((1, 3, "height", "width"), {}, "must be fixed"),
        ((1, 3, 64, 96, 2), {}, "is expected"),
        ((1, 4, 64, 96), {}, "is expected"),
        ((8, 3, 64, 96), {}, "takes 8 pictures"),
        ((1, 3, "height", "width"), {"imgsz": "[64, 96]"}, None),
        ((3, 64, 96), {}, None),
    ],
)
def test_the_input_must_be_one_picture_of_known_size(
    shape: tuple[int | str, ...], metadata: dict[str, str], says: str | None
) -> None:
    raw = runner(YOLO, metadata)
    raw.inputs = {"images": shape}
    if says is not None:
        with pytest.raises(ModelError, match=says):
            adapt(raw, "auto", "model.onnx")
        return
    network = Network.of(adapt(raw, "auto", "model.onnx"), "model", "0")
    assert network.size == SIZE
    network.run(np.zeros((*SIZE, 3), np.uint8), None)
    assert raw.fed["images"].ndim == len(shape)
