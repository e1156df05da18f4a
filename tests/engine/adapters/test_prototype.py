"""Prototype networks on the working grid, against masks assembled the long way: sum first, sample afterwards."""

import cv2
import numpy as np
import pytest

from engine.errors import ModelError
from engine.perceive.adapters.adapt import adapt
from engine.perceive.adapters.foreign import GRID, OUTSIDE
from engine.perceive.adapters.letterbox import Content
from engine.perceive.adapters.prototype import Detections, assemble, read_yolact, read_yolo
from engine.perceive.network import Network
from tests.engine.adapters.raw import GivenRunner

SIZE = (128, 224)
K, CLASSES, COUNT = 8, 3, 300
PLANES = (32, 56)


@pytest.fixture
def found() -> Detections:
    rng = np.random.default_rng(0)
    start = rng.uniform(-10, 90, (COUNT, 2)).astype(np.float32)
    boxes = np.concatenate([start, start + rng.uniform(10, 100, (COUNT, 2))], axis=1).astype(np.float32)
    planes = np.stack([cv2.resize(rng.normal(0, 1, (6, 9)).astype(np.float32), PLANES[::-1]) for _ in range(K)])
    return Detections(boxes, rng.random(COUNT, np.float32), rng.normal(0, 1, (COUNT, K)).astype(np.float32), planes)


def as_yolo(found: Detections, *, objectness: bool = False) -> np.ndarray:
    """Predictions [4 (+ 1) + classes + k, A] that say what `found` says; the best class varies."""
    size = found.boxes[:, 2:] - found.boxes[:, :2]
    classes = np.repeat(found.scores[None] / 2, CLASSES, axis=0)
    classes[np.arange(COUNT) % CLASSES, np.arange(COUNT)] = found.scores
    rows = [(found.boxes[:, :2] + size / 2).T, size.T, classes, found.coefficients.T]
    if objectness:
        rows[2:3] = [np.full((1, COUNT), 0.5, np.float32), classes * 2]
    return np.concatenate(rows).astype(np.float32)


def same(a: Detections, b: Detections) -> None:
    assert a.boxes == pytest.approx(b.boxes, abs=1e-3)
    assert a.scores == pytest.approx(b.scores, abs=1e-6)
    assert a.coefficients == pytest.approx(b.coefficients)
    assert a.prototypes == pytest.approx(b.prototypes)


def test_all_layouts_are_read_as_the_same_detections(found: Detections) -> None:
    same(read_yolo(as_yolo(found), found.prototypes), found)
    same(read_yolo(as_yolo(found, objectness=True).T, found.prototypes), found)
    fractions = found.boxes / np.array([SIZE[1], SIZE[0]] * 2, np.float32)
    classes = np.stack([1 - found.scores, found.scores / 3, found.scores], axis=1)
    for prototypes in (found.prototypes, found.prototypes.transpose(1, 2, 0)):
        same(read_yolact(fractions, classes, found.coefficients, prototypes, SIZE), found)


def slow_mask(found: Detections, n: int, content: Content) -> np.ndarray:
    """Sum of the prototypes, sampled at every cell's centre, cut at the box."""
    whole = np.tensordot(found.coefficients[n].astype(np.float64), found.prototypes, axes=1)
    out = np.full(GRID, float(OUTSIDE))
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            y = content.top + (i + 0.5) * content.height / GRID[0]
            x = content.left + (j + 0.5) * content.width / GRID[1]
            x0, y0, x1, y1 = found.boxes[n]
            if not (x0 <= x < x1 and y0 <= y < y1):
                continue
            v = min(max(y * PLANES[0] / SIZE[0] - 0.5, 0), PLANES[0] - 1)
            u = min(max(x * PLANES[1] / SIZE[1] - 0.5, 0), PLANES[1] - 1)
            a, b = int(v), int(u)
            c, d = min(a + 1, PLANES[0] - 1), min(b + 1, PLANES[1] - 1)
            top = whole[a, b] * (1 - u + b) + whole[a, d] * (u - b)
            bottom = whole[c, b] * (1 - u + b) + whole[c, d] * (u - b)
            out[i, j] = top * (1 - v + a) + bottom * (v - a)
    return out


@pytest.mark.parametrize("content", [Content(0, 0, *SIZE), Content(14, 0, 100, 224), Content(0, 61, 128, 102)])
def test_sampling_first_is_the_same_as_summing_first(found: Detections, content: Content) -> None:
    chosen = [0, 7, 100, 299]
    logits = assemble(found.prototypes, found.coefficients[chosen], found.boxes[chosen], SIZE, content.centres(GRID))
    for n, mask in zip(chosen, logits, strict=True):
        assert mask == pytest.approx(slow_mask(found, n, content), abs=1e-4)


def test_masks_agree_with_those_made_on_the_picture(found: Detections) -> None:
    """The way detectors do it themselves: sum, enlarge to the picture, cut at the box, threshold at 0."""
    content = Content(0, 0, *SIZE)
    logits = assemble(found.prototypes, found.coefficients, found.boxes, SIZE, content.centres(GRID))
    overlaps = []
    for n in range(40):
        whole = cv2.resize(np.tensordot(found.coefficients[n], found.prototypes, axes=1), SIZE[::-1])
        x0, y0, x1, y1 = found.boxes[n].round().astype(int).clip(0)
        full = np.zeros(SIZE, bool)
        full[y0:y1, x0:x1] = whole[y0:y1, x0:x1] > 0
        share = full.reshape(GRID[0], 2, GRID[1], 2).mean(axis=(1, 3))
        decided, ours, theirs = share != 0.5, logits[n] > 0, share > 0.5
        if theirs.sum() > 100:
            overlaps.append((ours & theirs & decided).sum() / ((ours | theirs) & decided).sum())
    assert len(overlaps) > 20
    assert np.mean(overlaps) > 0.98


def test_the_engine_gets_the_best_of_thousands_through_the_contract(found: Detections) -> None:
    values = {"output0": as_yolo(found)[None], "output1": found.prototypes[None]}
    raw = GivenRunner(SIZE, values, {"proposals": "20", "task": "segment"})
    network = Network.of(adapt(raw, "auto", "given"), "given", "0")
    output = network.run(np.zeros((*SIZE, 3), np.uint8), None)
    assert output.masks.shape == (20, *GRID)
    assert output.scores[0] == found.scores.max()
    assert (np.diff(output.scores) <= 0).all()
    best = int(found.scores.argmax())
    assert output.masks[0] == pytest.approx(slow_mask(found, best, Content(0, 0, *SIZE)), abs=1e-4)


def test_a_wide_frame_in_a_square_input_is_read_without_its_bars(found: Detections) -> None:
    """Prototypes that are 1 inside the frame and -1 on the bars: nothing of the bars may be left."""
    plane = np.full((1, 32, 32), -1.0, np.float32)
    plane[0, 8:24] = 1.0
    rows = np.array([[64, 64, 128, 128, 0.9, 1.0]], np.float32).T
    raw = GivenRunner((128, 128), {"a": np.repeat(rows, 7, axis=1)[None], "b": plane[None]})
    network = Network.of(adapt(raw, "auto", "given"), "given", "0")
    mask = network.run(np.full((128, 128, 3), 255, np.uint8), None, aspect=2.0).masks[0]
    assert (mask > 0).mean() > 0.95
    assert raw.fed["images"][0, :, 32:96] == pytest.approx(1.0)
    assert raw.fed["images"][0, :, :32] == pytest.approx(114 / 255)


def test_files_with_suppression_inside_or_too_few_rows_are_refused(found: Detections) -> None:
    values = {"output0": as_yolo(found)[None], "output1": found.prototypes[None]}
    with pytest.raises(ModelError, match="nms=False"):
        adapt(GivenRunner(SIZE, values, {"args": "{'batch': 1, 'nms': True}"}), "auto", "given")
    with pytest.raises(ModelError, match="at least 13 are needed for 8 prototypes"):
        read_yolo(np.zeros((12, COUNT), np.float32), found.prototypes)
