"""The report behind the score prior, on a few samples made of the built-in scene and on masks drawn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.score_prior import Held, PriorScore, hold, main
from engine.config import EngineConfig
from engine.perceive.motion import MotionEstimator
from engine.perceive.network import Network
from engine.percepts import Percepts
from learning.synthesis.sample import MAX_INSTANCES, Kind, Origin, Sample
from learning.synthesis.shards import Shards, write_shard
from streaming.sources import open_source


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """held_0000.shard: three frames with motion, where the third object stands, and one photograph without."""
    folder = tmp_path_factory.mktemp("shards")
    estimator, samples = MotionEstimator(), []
    with open_source("demo://?frames=5&seed=3&size=256x448") as source:
        for frame in source:
            motion = estimator.step(frame.image)
            kinds = np.full(MAX_INSTANCES, Kind.MOVING, np.uint8)
            kinds[0], kinds[3] = Kind.ABSENT, Kind.STATIC
            features = None if motion is None or frame.index == 4 else motion.features
            origin = Origin.COMPOSITE if features is not None else Origin.COCO
            if frame.index:
                rgb = np.ascontiguousarray(frame.image[:, :, ::-1])
                samples.append(Sample(rgb, features, frame.truth.astype(np.uint8), kinds, origin))
    write_shard(folder / "held_0000.shard", len(samples), samples)
    return folder


def test_every_weight_is_reported(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prior.json"
    assert main(["--shards", str(shards), "--json", str(out), "--weights", "0,2"]) == 0
    content = json.loads(out.read_text())
    assert content["samples"] == 4
    assert list(content["lambda_score"]) == ["0", "2"]
    for row in content["lambda_score"].values():
        assert row["instances"] >= 4
        assert row["foreground_samples"] == 3  # the photograph shows things without id
        assert 0 <= row["nothing"] <= 1
        assert 0 <= row["best_IoU"] <= 1
    assert "foreground_IoU" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--shards", str(shards), "--json", str(tmp_path), "--weights", "0", "--samples", "1"]) == 5
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert "--json" in line


def test_standing_objects_are_asked_for_and_no_foreground(shards: Path, default_model: Path) -> None:
    held = hold(Shards(shards, "held"), 0, Network(default_model), EngineConfig())
    ids = Shards(shards, "held")[0][2]
    assert held.percepts.flow is not None
    assert len(held.things) == len(np.unique(ids)) - 1
    assert (held.counted == (ids != 3)).all()
    assert (held.foreground == ((ids > 0) & (ids != 3))).all()


def drawn(*columns: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(columns), 32, 64), bool)
    for mask, (left, right) in zip(masks, columns, strict=True):
        mask[:, left:right] = True
    return masks


def test_figures_of_masks_drawn_by_hand() -> None:
    candidates, truth = drawn((0, 10), (20, 40), (50, 60)), drawn((0, 10), (20, 30))
    logits = np.where(candidates, 3.0, -3.0).astype(np.float32)
    percepts = Percepts(candidates, np.ones(3, np.float32), np.ones((32, 64), np.float32), None, None, None, logits)
    held = Held(percepts, truth, truth, truth.any(axis=0), np.ones((32, 64), bool), labelled=True)
    score = PriorScore()
    score.add(held, (0, 1, 2))
    found = score.figures()
    assert found["best_IoU"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["foreground_IoU"] == pytest.approx(20 / 40)
    assert found["nothing"] == pytest.approx(1 / 3, abs=1e-4)
    score.add(held, ())
    assert score.figures()["best_IoU"] == pytest.approx((1.0 + 0.5) / 4)
    assert score.figures()["masks"] == 1.5


def test_a_folder_without_shards_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--shards", str(tmp_path)]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "held_*.shard" in line
