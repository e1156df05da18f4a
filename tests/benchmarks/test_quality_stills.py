"""AP and AR of predictors whose figures follow from the definition."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.stills import answers, outlined, score_stills, still_paths
from engine.config import EngineConfig
from engine.errors import SourceError
from engine.perceive.network import Network
from learning.average_precision import Answer, AveragePrecision

SIZE = (60, 80)


def truth() -> np.ndarray:
    ids = np.zeros(SIZE, np.int32)
    ids[5:25, 5:25], ids[30:50, 40:60] = 1, 2
    return ids


def answer(*masks: np.ndarray, scores: list[float]) -> Answer:
    return Answer(np.stack(masks), np.array(scores))


def test_a_perfect_predictor_scores_one() -> None:
    judge = AveragePrecision()
    judge.add(truth(), answer(truth() == 1, truth() == 2, scores=[0.9, 0.8]))
    figures = judge.figures()
    assert [figures[name] for name in ("AP", "AP50", "AP75", "AR@10", "AR@20", "AR@100")] == pytest.approx([1.0] * 6)
    assert figures["AR small"] == pytest.approx(1.0)  # 400 pixels each
    assert np.isnan(figures["AR large"])


def test_half_of_the_instances_give_half_the_recall() -> None:
    judge = AveragePrecision()
    judge.add(truth(), answer(truth() == 1, scores=[0.9]))
    figures = judge.figures()
    assert figures["AR@20"] == pytest.approx(0.5)
    # Precision is 1 up to recall 0.5 and 0 beyond: 51 of the 101 recall levels.
    assert figures["AP50"] == pytest.approx(51 / 101)


def test_overlap_of_three_quarters_passes_the_lower_thresholds_only() -> None:
    mask = truth() == 1
    mask[5:10] = False  # 15 of 20 rows are left
    judge = AveragePrecision()
    judge.add(np.where(truth() == 1, 1, 0), answer(mask, scores=[0.5]))
    figures = judge.figures()
    assert figures["AP50"] == pytest.approx(1.0)
    assert figures["AP"] == pytest.approx(0.6)  # 0.50, 0.55 ... 0.75 of ten thresholds


def test_a_better_scored_false_mask_halves_the_precision() -> None:
    judge = AveragePrecision()
    wrong = np.zeros(SIZE, bool)
    wrong[50:, :10] = True
    judge.add(np.where(truth() == 1, 1, 0), answer(wrong, truth() == 1, scores=[0.9, 0.4]))
    assert judge.figures()["AP50"] == pytest.approx(0.5)


def test_masks_beyond_the_twentieth_do_not_count_at_twenty() -> None:
    wrong = [np.zeros(SIZE, bool) for _ in range(20)]
    for index, mask in enumerate(wrong):
        mask[55:59, 4 * index : 4 * index + 3] = True
    judge = AveragePrecision()
    judge.add(truth(), answer(*wrong, truth() == 1, truth() == 2, scores=[*np.linspace(0.9, 0.5, 20), 0.2, 0.1]))
    figures = judge.figures()
    assert (figures["AR@20"], figures["AR@100"]) == pytest.approx((0.0, 1.0))


def test_nothing_found_is_zero_and_nothing_annotated_is_unknown() -> None:
    nothing = Answer(np.empty((0, *SIZE), bool), np.empty(0))
    judge = AveragePrecision()
    judge.add(truth(), nothing)
    assert set(judge.figures().values()) == {0.0}
    judge = AveragePrecision()
    judge.add(np.zeros(SIZE, np.int32), nothing)
    assert np.isnan(judge.figures()["AP"])


def write_stills(folder: Path, count: int) -> Path:
    for name in ("images", "instances"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        image = np.full((*SIZE, 3), 90, np.uint8)
        image[truth() > 0] = (30, 200, 220)
        cv2.imwrite(str(folder / "images" / f"{index:03d}.jpg"), image)
        cv2.imwrite(str(folder / "instances" / f"{index:03d}.png"), truth().astype(np.uint8))
    return folder


def test_a_limit_takes_evenly_spaced_images(tmp_path: Path) -> None:
    folder = write_stills(tmp_path / "bins", 9)
    assert [image.stem for image, _ in still_paths(folder, 3)] == ["000", "004", "008"]
    assert len(still_paths(folder, None)) == 9


def test_published_masks_are_among_the_candidates_and_do_not_overlap(default_model: Path) -> None:
    network = Network(default_model)
    image = np.full((120, 160, 3), 90, np.uint8)
    cv2.circle(image, (50, 60), 25, (30, 200, 220), -1)
    found, scene = answers(image, EngineConfig(), network)
    assert len(found["network"].masks) == len(found["network"].scores) > 0
    assert found["published"].masks.sum(axis=0).max(initial=0) <= 1
    assert len(found["published"].masks) == len(scene.objects) <= len(found["candidates"].masks)
    again, _ = answers(image, EngineConfig(), network)  # nothing is carried from image to image
    assert (again["network"].masks == found["network"].masks).all()


def test_a_folder_is_scored_and_drawn(tmp_path: Path, default_model: Path) -> None:
    folder, overlays = write_stills(tmp_path / "bins", 2), tmp_path / "overlays"
    overlays.mkdir()
    row = score_stills(folder, EngineConfig(), Network(default_model), None, overlays)
    assert (row["images"], row["instances"]) == (2, 4)
    assert sorted(p.name for p in overlays.iterdir()) == ["000.jpg", "001.jpg"]
    assert all(0 <= row[kind]["AP50"] <= 1 for kind in ("network", "candidates", "published"))


def test_what_is_not_annotated_is_null_and_not_nan(tmp_path: Path, default_model: Path) -> None:
    row = score_stills(write_stills(tmp_path / "bins", 1), EngineConfig(), Network(default_model), None, None)
    assert row["network"]["AR large"] is None
    json.dumps(row, allow_nan=False)


def test_outline_leaves_the_inside_as_it_is() -> None:
    picture = np.full((*SIZE, 3), 77, np.uint8)
    out = outlined(picture, truth())
    assert (out[5, 5:25] == 255).all()
    assert (out[12:18, 12:18] == 77).all()
    assert (picture == 77).all()


def test_bad_folders_are_one_line(tmp_path: Path, default_model: Path) -> None:
    with pytest.raises(SourceError, match="no images/"):
        still_paths(tmp_path, None)
    for name in ("images", "instances"):
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match=r"holds no \.jpg"):
        still_paths(tmp_path, None)
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"no annotation a\.png"):
        still_paths(tmp_path, None)
    cv2.imwrite(str(tmp_path / "instances" / "a.png"), truth().astype(np.uint8))
    with pytest.raises(SourceError, match="not a readable image"):
        score_stills(tmp_path, EngineConfig(), Network(default_model), None, None)
