"""The one-shot benchmark: baselines by hand, whole runs on the built-in scene and on a folder in the DAVIS layout."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import one_shot
from benchmarks.one_shot import Baselines, overlap, prompted_objects, summarise
from engine.percepts import Percepts
from streaming.sources import open_source


def percepts(masks: np.ndarray, flow: np.ndarray | None) -> Percepts:
    logits = np.where(masks, 3.0, -3.0).astype(np.float32)
    ones = np.ones(masks.shape[1:], np.float32)
    return Percepts(masks, np.full(len(masks), 0.5, np.float32), ones, None, flow, flow, logits)


def square(left: int) -> np.ndarray:
    mask = np.zeros((10, 30), bool)
    mask[3:8, left : left + 5] = True
    return mask


def test_the_simple_trackers_do_what_they_say() -> None:
    simple = Baselines(square(4).astype(np.float32))
    flow = np.zeros((2, 10, 30), np.float32)
    flow[0] = -3.0  # everything was three pixels further left
    moved, chosen = simple.step(percepts(np.stack([square(20), square(6)]), flow))
    assert ((moved > 0.5) == square(7)).all()
    assert ((chosen > 0.5) == square(6)).all()
    # Far from the last choice there is nothing to choose.
    _, chosen = simple.step(percepts(square(20)[None], flow))
    assert not (chosen > 0.5).any()
    _, chosen = simple.step(percepts(np.empty((0, 10, 30), bool), flow))
    assert not (chosen > 0.5).any()


def test_overlap_by_hand() -> None:
    assert overlap(square(0), square(3)) == pytest.approx(10 / 40)
    assert overlap(square(0) & False, square(3) & False) == 1.0
    assert overlap(square(0), square(3) & False) == 0.0


def test_only_large_objects_are_prompted_largest_first() -> None:
    truth = np.zeros((100, 100), int)
    truth[:30, :30], truth[50:90, 50:90], truth[99, 99] = 4, 9, 7
    assert prompted_objects(truth) == [9, 4]


def test_the_mean_counts_objects_not_videos() -> None:
    row = {"frames": 10, "engine": 1.0, "flow alone": 0.0, "best proposal": 0.5, "absent": 2, "reported absent": 1}
    row |= {"ms": 2.0}
    mean = summarise({"a": {"1": row, "2": row}, "b": {"1": {**row, "engine": 0.4}}})
    assert mean["engine"] == pytest.approx(0.8)
    assert (mean["frames"], mean["absent"], mean["reported absent"]) == (30, 6, 3)


def test_the_command_scores_the_scene_and_a_folder(default_model: Path, tmp_path: Path) -> None:
    frames, masks = tmp_path / "JPEGImages/480p/scene", tmp_path / "Annotations/480p/scene"
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    with open_source("demo://?frames=8&seed=5&size=240x428&objects=1&static_camera=1") as source:
        for frame in source:
            assert frame.truth is not None
            cv2.imwrite(str(frames / f"{frame.index:05d}.jpg"), frame.image)
            cv2.imwrite(str(masks / f"{frame.index:05d}.png"), (frame.truth > 0).astype(np.uint8) * 255)
    out = tmp_path / "one_shot.json"
    command = ["--model", str(default_model), "--data", str(tmp_path), "--json", str(out)]
    assert one_shot.main([*command, "--seeds", "7", "--frames", "12"]) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    row = content[tmp_path.name]["videos"]["scene"]["1"]
    assert row["frames"] == 6
    assert 0.5 < row["engine"] <= 1
    assert row["ms"] > 0
    assert content["built-in scene"]["videos"]["seed 7"]


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_shot.main(["--seeds", "", "--data", str(tmp_path)]) != 0
    assert "JPEGImages" in capsys.readouterr().err
