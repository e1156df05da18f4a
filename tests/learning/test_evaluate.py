"""The evaluation gives known scores for known answers."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.perceive.network import DEFAULT_MODEL
from learning import evaluate
from learning.evaluate import iou, score_davis


def _davis(root: Path, frames: int = 5) -> None:
    images, annotations = (root / n / "480p" / "square" for n in ("JPEGImages", "Annotations"))
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (240, 427, 3)).astype(np.uint8)
    for number in range(frames):
        image, truth = cv2.GaussianBlur(background, (0, 0), 2), np.zeros((240, 427), np.uint8)
        x = 60 + 12 * number
        image[80:160, x : x + 80] = rng.integers(100, 255, 3)
        truth[80:160, x : x + 80] = 255
        cv2.imwrite(str(images / f"{number:05d}.jpg"), image)
        cv2.imwrite(str(annotations / f"{number:05d}.png"), truth)


def test_a_model_that_sees_motion_scores_between_chance_and_perfect(motion_model: Path, tmp_path: Path) -> None:
    _davis(tmp_path)
    (score,) = score_davis(motion_model, tmp_path)
    assert score.name == "square"
    assert score.frames == 3
    assert score.best_any >= score.best_mask >= score.top >= 0
    assert score.best_any >= score.binary - 1e-6 or score.binary < 1


def test_iou_of_known_masks() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert iou(a, b) == pytest.approx(1 / 3)


def test_command_writes_json_and_names_a_wrong_folder(
    motion_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(motion_model), "--metrics", "davis"]
    assert evaluate.main([*arguments, "--data", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    _davis(tmp_path, frames=3)
    assert evaluate.main([*arguments, "--data", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())[0]["name"] == "square"


def test_unknown_metric_and_missing_model(tmp_path: Path) -> None:
    assert evaluate.main(["--model", "m", "--data", str(tmp_path), "--metrics", "vibes"]) == 2
    assert evaluate.main(["--model", str(tmp_path / "m.onnx"), "--data", str(tmp_path), "--metrics", "davis"]) in (3, 4)


def test_photographs_are_scored_like_coco(picture_folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(DEFAULT_MODEL), "--metrics", "coco", "--json", str(tmp_path / "f.json")]
    assert evaluate.main([*arguments, "--data", str(tmp_path)]) == 3
    assert evaluate.main([*arguments, "--data", str(picture_folder / "coco")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    # Procedural objects on a procedural ground: found, but far from perfectly.
    assert 0.05 < figures["AP50"] <= 1
    assert figures["AP"] <= figures["AP50"]
