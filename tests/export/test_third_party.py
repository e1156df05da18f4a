"""Other people's networks, exported with random weights, against their originals in torch."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from engine.errors import ModelError
from engine.frame import Frame
from engine.perceive.adapters.foreign import GRID
from engine.perceive.network import Network
from engine.run import main as run_engine
from export.third_party.__main__ import main
from export.third_party.prototype import PROTOTYPES, build
from export.third_party.torchvision_ops import pooled, suppressed

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="needs torchvision: pip install --no-deps torchvision pillow",
)
SIZE = (128, 192)


def picture(seed: int) -> np.ndarray:
    """uint8 [h, w, 3] BGR."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def as_input(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def prototype_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "prototype.onnx"
    assert main(["prototype", "--out", str(path), "--size", "128x192", "--proposals", "30"]) == 0
    return path


def test_prototype_masks_are_the_original_networks(prototype_file: Path) -> None:
    network = Network(prototype_file)
    output = network.run(picture(0), None)
    with torch.no_grad():
        predictions, prototypes = build(None, SIZE)(as_input(picture(0)))
    rows = predictions[0]
    scores, coefficients = rows[4], rows[5:]
    assert output.masks.shape == (30, *GRID)
    assert output.scores[0] == pytest.approx(scores.max().item(), abs=1e-5)
    # Each mask the engine got must be one of the original's, at the place of its box.
    planes = torch.nn.functional.interpolate(prototypes, SIZE, mode="bilinear", align_corners=False)[0]
    for mask, score in zip(output.masks[:10], output.scores[:10], strict=True):
        n = (scores - float(score)).abs().argmin()
        whole = torch.einsum("k,khw->hw", coefficients[:, n], planes)
        x, y, w, h = rows[:4, n].tolist()
        centre_y, centre_x = (np.indices(GRID) + 0.5) * np.array([SIZE[0] / 64, SIZE[1] / 112]).reshape(2, 1, 1)
        inside = (abs(centre_x - x) < w / 2) & (abs(centre_y - y) < h / 2)
        expected = whole.numpy()[centre_y.astype(int), centre_x.astype(int)]
        clear = inside & (abs(expected) > 0.1 * abs(expected).max())
        assert clear.any()
        assert ((mask > 0) == (expected > 0))[clear].mean() > 0.98
        assert not (mask > 0)[~inside].any()


def test_prototype_weights_come_from_a_file_and_a_wrong_one_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = tmp_path / "weights.pt", tmp_path / "out.onnx"
    other = build(None, (64, 64), seed=5)
    torch.save(other.state_dict(), weights)
    assert main(["prototype", "--out", str(out), "--size", "64x64", "--weights", str(weights)]) == 0
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    with torch.no_grad():
        best = other(as_input(image))[0][0, 4].max().item()
    assert Network(out).run(image, None).scores[0] == pytest.approx(best, abs=1e-5)
    torch.save({"heads.0.weight": torch.zeros(4 + 1 + PROTOTYPES, 3)}, weights)
    out.unlink()
    assert main(["prototype", "--out", str(out), "--size", "64x64", "--weights", str(weights)]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--out", "x.onnx", "--size", "100x200"], 2, "multiples of 32"),
        (["--out", "x.onnx", "--size", "big"], 2, "HEIGHTxWIDTH"),
        (["--out", "x.onnx", "--proposals", "0"], 2, "at least 1"),
        (["--out", "x.pt", "--size", "64x64"], 2, ".onnx"),
        (["--out", "nowhere/x.onnx", "--size", "64x64"], 5, "does not exist"),
        (["--out", "x.onnx", "--size", "64x64", "--weights", "none.pt"], 4, "none.pt"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, monkeypatch, capsys, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prototype", *arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_engine_runs_an_exported_network(prototype_file: Path, tmp_path: Path, caplog) -> None:
    demo = "demo://?frames=4&seed=5&size=240x428"
    assert run_engine(["--source", demo, "--no-publish", "--model", str(prototype_file)]) == 0
    assert "no output 'background': that cue is off" in caplog.text
    wrong = ["--source", demo, "--no-publish", "--model", str(prototype_file), "--model-format", "maskrcnn"]
    assert run_engine(wrong) == 4


def test_stand_in_operators_follow_their_definition() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10.0]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
    assert suppressed(boxes, scores, 0.5).tolist() == [1, 2]
    assert suppressed(boxes, scores, 0.9).tolist() == [1, 2, 3]
    # On a plane that rises evenly, each bin's mean is the value at its centre.
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    rois = torch.tensor([[0.0, 8.0, 4.0, 40.0, 24.0]])
    bins = pooled((2 * x + 100 * y)[None, None], rois, 0.5, 2, 4, 2, False)[0, 0]
    centres_x, centres_y = torch.tensor([6.0, 10, 14, 18]), torch.tensor([4.5, 9.5])
    torch.testing.assert_close(bins, 2 * centres_x[None] + 100 * centres_y[:, None])


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_torchvision_it_says_what_to_install(tmp_path: Path, capsys) -> None:
    assert main(["maskrcnn", "--out", str(tmp_path / "out.onnx")]) == 4
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "pip install --no-deps torchvision" in lines[0]


@pytest.fixture(scope="module")
def mask_rcnn_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "maskrcnn.onnx"
    assert main(["maskrcnn", "--out", str(path), "--size", "128x192", "--proposals", "12", "--regions", "60"]) == 0
    return path


@needs_torchvision
def test_mask_rcnn_through_the_engine_is_torchvisions_own_answer(mask_rcnn_file: Path) -> None:
    """Boxes, scores and pasted masks of the original's whole forward pass, suppression off and threshold 0."""
    from export.third_party import mask_rcnn

    network = Network(mask_rcnn_file)
    original = mask_rcnn.build(None, SIZE, 12, 60).network
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    for seed in range(2):
        output = network.run(picture(seed), None)
        with torch.no_grad():
            images, _ = original.transform([as_input(picture(seed))[0]])
            features = original.backbone(images.tensors)
            regions, _ = original.rpn(images, features)
            answer = original.roi_heads(features, regions, images.image_sizes)[0][0]
            masks = paste_masks_in_image(answer["masks"], answer["boxes"], SIZE)
            on_grid = torch.nn.functional.interpolate(masks, GRID, mode="bilinear", align_corners=False)[:, 0].numpy()
        # The engine leaves out boxes that nearly repeat a better one.
        found = output.scores[output.scores > 0]
        assert 3 <= len(found) <= 12
        where = np.abs(answer["scores"].numpy()[None] - found[:, None]).argmin(axis=1)
        assert found == pytest.approx(answer["scores"].numpy()[where], abs=1e-5)
        probability = 1 / (1 + np.exp(-output.masks[: len(found)]))
        assert np.abs(probability - on_grid[where].clip(0.002473, 0.997527)).mean() < 0.005
        clear = np.abs(on_grid[where] - 0.5) > 0.1
        assert ((probability > 0.5) == (on_grid[where] > 0.5))[clear].mean() > 0.995


@needs_torchvision
def test_mask_rcnn_runs_in_the_pipeline_without_cues_it_does_not_have(mask_rcnn_file: Path) -> None:
    from engine.config import EngineConfig
    from engine.pipeline import Pipeline

    pipeline = Pipeline(EngineConfig(), Network(mask_rcnn_file))
    scenes = [scene for i in range(3) for scene in pipeline.step(Frame(picture(i), i, 0, "noise"))]
    assert {scene.kind for scene in [*scenes, *pipeline.flush()]} == {"provisional", "final"}


@needs_torchvision
def test_weights_with_classes_are_recognised_and_others_refused(tmp_path: Path) -> None:
    from export.third_party import mask_rcnn

    torch.save({"some": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="maskrcnn_resnet50_fpn"):
        mask_rcnn.build(tmp_path / "other.pt", SIZE, 5)
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    several = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    torch.save({"model": several.state_dict()}, tmp_path / "five.pt")
    proposals = mask_rcnn.build(tmp_path / "five.pt", SIZE, 5, 20)
    with torch.no_grad():
        boxes, labels, scores, masks = proposals(as_input(picture(3)))
    assert len(boxes) == len(labels) == len(scores) == len(masks) == 5
    assert set(labels.tolist()) <= {1, 2, 3, 4}
    assert (scores.diff() <= 0).all()
