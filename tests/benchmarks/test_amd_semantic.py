"""Fine-tuning for classes: which photographs teach, and that both starts are scored alike."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import amd, amd_semantic  # noqa: E402
from learning.amd.checkpoint import model_content  # noqa: E402
from learning.networks.amd import Amd, AmdConfig  # noqa: E402


def _photographs(data: Path, count: int) -> Path:
    """Red people and green animals, discs on gray; the gray tells the number of the picture."""
    for name, colour in (("people", (0, 0, 250)), ("animals", (0, 250, 0))):
        for kind in ("images", "instances"):
            (data / name / kind).mkdir(parents=True)
        for number in range(count):
            image, mask = np.full((96, 128, 3), 40 + 8 * number, np.uint8), np.zeros((96, 128), np.uint8)
            cv2.circle(image, (64, 48), 30, colour, -1)
            cv2.circle(mask, (64, 48), 30, 7, -1)
            cv2.imwrite(str(data / name / "images" / f"{number:03d}.png"), image)
            cv2.imwrite(str(data / name / "instances" / f"{number:03d}.png"), mask)
    return data


def test_blocks_of_neighbours_are_kept_apart(tmp_path: Path) -> None:
    taught, held = amd_semantic.photographs(_photographs(tmp_path, 14), 14)
    assert (len(taught), len(held)) == (8, 20)
    grays = [{int(image[0, 0, 0]) for image, _ in side} for side in (taught, held)]
    assert not grays[0] & grays[1]
    for image, labels in (*taught, *held):
        assert image.shape[1:] == labels.shape
        person = image[0] > 200  # RGB
        assert np.mean((labels == 1) != (person & (image[1] < 50))) < 0.02
        assert set(np.unique(labels)) in ({0, 1}, {0, 2})


def test_both_starts_are_scored_for_every_seed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Amd(AmdConfig(segments=3, head=8, pyramid=(8, 8, 8), motion=8, readout=16))
    torch.save(model_content(network, 0, {"step": 0}), tmp_path / "model.pt")
    data, report = _photographs(tmp_path / "data", 14), tmp_path / "out.json"
    arguments = ["--model", str(tmp_path / "model.pt"), "--data", str(data), "--semantic", "1,12", "--seeds", "0,1"]
    assert amd.main([*arguments, "--json", str(report)]) == 0
    content = json.loads(report.read_text())["semantic"]
    assert (content["taught"], content["held_out"]) == (8, 20)
    for start in amd_semantic.START:
        row = content["mean_iou"][start]
        assert list(row) == ["1", "12"]
        assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in row.values())
    assert amd.main([*arguments[:2], "--semantic", "1"]) == 2
    assert amd.main([*arguments[:2], "--semantic", "1", "--data", str(tmp_path)]) == 3
