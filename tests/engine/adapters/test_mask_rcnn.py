"""Mask R-CNN's outputs on the working grid, against a plain reimplementation of torchvision's pasting."""

import numpy as np
import pytest

from engine.errors import ModelError
from engine.perceive.adapters.adapt import adapt
from engine.perceive.adapters.foreign import GRID, OUTSIDE
from engine.perceive.adapters.letterbox import Content
from engine.perceive.adapters.mask_rcnn import output_names, paste
from engine.perceive.network import Network
from tests.engine.adapters.raw import GivenRunner

SIZE = (256, 448)


def pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One small mask on the picture, pixel by pixel: probabilities float64 [h, w]."""
    m = len(mask)
    padded = np.pad(mask, 1).astype(np.float64)
    scale = np.float32((m + 2) / m)
    cx, cy = (box[2] + box[0]) * np.float32(0.5), (box[3] + box[1]) * np.float32(0.5)
    hw, hh = (box[2] - box[0]) * np.float32(0.5) * scale, (box[3] - box[1]) * np.float32(0.5) * scale
    x0, y0, x1, y1 = int(cx - hw), int(cy - hh), int(cx + hw), int(cy + hh)
    w, h = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    out = np.zeros(size)
    for y in range(max(y0, 0), min(y1 + 1, size[0])):
        for x in range(max(x0, 0), min(x1 + 1, size[1])):
            v = max((y - y0 + 0.5) * (m + 2) / h - 0.5, 0)
            u = max((x - x0 + 0.5) * (m + 2) / w - 0.5, 0)
            a, b = int(v), int(u)
            c, d = min(a + 1, m + 1), min(b + 1, m + 1)
            f, g = v - a, u - b
            out[y, x] = (padded[a, b] * (1 - g) + padded[a, d] * g) * (1 - f) + (
                padded[c, b] * (1 - g) + padded[c, d] * g
            ) * f
    return out


def detections(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (some across the border), falling scores, smooth masks."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(-10, 1, (n, 2)) + rng.uniform(0, 1, (n, 2)) * [SIZE[1] - 60, SIZE[0] - 60]
    boxes = np.concatenate([start, start + rng.uniform(8, 150, (n, 2))], axis=1).astype(np.float32)
    y, x = np.mgrid[0:28, 0:28]
    phase = rng.uniform(0, 3, (n, 4, 1, 1))
    waves = np.sin(x / 6 + phase[:, 0]) + np.sin(y / 5 + phase[:, 1]) + np.sin((x + y) / 9 + phase[:, 2])
    masks = 1 / (1 + np.exp(-3 * waves))
    return boxes, np.sort(rng.random(n, np.float32))[::-1].copy(), masks[:, None].astype(np.float32)


def test_pasting_on_a_grid_as_fine_as_the_picture_is_torchvisions() -> None:
    boxes, _, masks = detections(0)
    logits = paste(masks[:, 0], boxes, Content(0, 0, *SIZE), SIZE)
    for n in range(len(boxes)):
        expected = pasted(masks[n, 0], boxes[n], SIZE)
        assert 1 / (1 + np.exp(-logits[n])) == pytest.approx(expected.clip(0.002473, 0.997527), abs=2e-5)
        assert ((logits[n] > 0) != (expected > 0.5)).sum() <= 1


def test_pasting_on_the_working_grid_is_what_lies_between_the_pixels() -> None:
    """Cells are 4 pixels wide: their centre lies between the middle four."""
    boxes, _, masks = detections(1)
    logits = paste(masks[:, 0], boxes, Content(0, 0, *SIZE), GRID)
    for n in range(len(boxes)):
        fine = pasted(masks[n, 0], boxes[n], SIZE)
        middle = (fine[1::4, 1::4] + fine[2::4, 1::4] + fine[1::4, 2::4] + fine[2::4, 2::4]) / 4
        inside = 1 / (1 + np.exp(-logits[n]))
        assert np.abs(inside - middle.clip(0.002473, 0.997527)).mean() < 0.002
        a, b = inside > 0.5, middle > 0.5
        assert (a & b).sum() >= 0.95 * (a | b).sum() or (a ^ b).sum() <= 2


def test_a_wide_frame_in_a_square_input_comes_back_to_its_place() -> None:
    mask = np.ones((1, 1, 28, 28), np.float32)
    # The frame, 2:1, fills the upper half of the input; the box is its right half.
    values = {"boxes": np.array([[128, 0, 256, 128]], np.float32), "scores": np.ones(1, np.float32), "masks": mask}
    runner = adapt(GivenRunner((256, 256), values | {"labels": np.ones(1)}), "auto", "given")
    network = Network.of(runner, "given", "0")
    raw = runner._raw  # type: ignore[attr-defined]
    found = network.run(np.full((256, 256, 3), 255, np.uint8), None, aspect=2.0).masks[0] > 0
    assert found[2:-2, 58:-2].all()
    assert not found[:, :54].any()
    assert raw.fed["images"][0, :, :128] == pytest.approx(1.0)
    assert raw.fed["images"][0, 0, 128:] == pytest.approx(0.485, abs=1e-4)


def test_the_engine_gets_as_many_masks_as_were_promised_and_no_more() -> None:
    boxes, scores, masks = detections(2, 30)
    values = {"boxes": boxes, "labels": np.ones(30), "scores": scores, "masks": masks}
    for promised in (10, 64):
        runner = adapt(GivenRunner(SIZE, values, {"proposals": str(promised)}), "auto", "given")
        output = Network.of(runner, "given", "0").run(np.zeros((*SIZE, 3), np.uint8), None)
        assert output.masks.shape == (promised, *GRID)
        assert output.background is None
        assert output.embedding is None
        assert output.scores[:10] == pytest.approx(scores[:10])
        assert not output.scores[30:].any()
        assert (output.masks[30:] == OUTSIDE).all()


def test_masks_the_file_has_pasted_itself_are_shrunk() -> None:
    boxes, scores, masks = detections(3, 4)
    whole = np.stack([pasted(mask[0], box, SIZE) for mask, box in zip(masks, boxes, strict=True)])[:, None]
    values = {"boxes": boxes, "labels": np.ones(4), "scores": scores, "masks": whole.astype(np.float32)}
    output = Network.of(adapt(GivenRunner(SIZE, values), "auto", "given"), "given", "0").run(
        np.zeros((*SIZE, 3), np.uint8), None
    )
    cells = whole[:, 0].reshape(4, GRID[0], 4, GRID[1], 4).mean(axis=(2, 4))
    assert ((output.masks[:4] > 0) != (cells > 0.5)).mean() < 0.001


def test_nothing_found_is_an_answer() -> None:
    shapes = {"boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 1, 28, 28)}
    values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    output = Network.of(adapt(GivenRunner(SIZE, values), "auto", "given"), "given", "0").run(
        np.zeros((*SIZE, 3), np.uint8), None
    )
    assert not (output.masks > 0).any()
    assert not output.scores.any()


def test_outputs_without_names_are_known_by_shape_and_order() -> None:
    assert output_names({"3": (None, 4), "7": ("n",), "8": ("n",), "9": ("n", 1, 28, 28)}) == ("3", "8", "9")
    assert output_names({"3": (None, 5), "7": ("n",), "8": ("n",), "9": ("n", 1, 28, 28)}) is None
    assert output_names({"masks": (1, 40, 64, 112), "scores": (1, 40)}) is None


def test_scores_that_are_no_probabilities_are_refused() -> None:
    boxes, scores, masks = detections(4, 3)
    values = {"boxes": boxes, "labels": np.ones(3), "scores": scores * 9, "masks": masks}
    network = Network.of(adapt(GivenRunner(SIZE, values), "auto", "given"), "given", "0")
    with pytest.raises(ModelError, match="0 to 1 are needed"):
        network.run(np.zeros((*SIZE, 3), np.uint8), None)
