"""Samples are reproducible, their labels fit their pixels, their features are the engine's."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import StoreError
from engine.perceive.motion import FLOW_SIZE, MotionEstimator, network_features
from learning.synthesis import __main__ as command
from learning.synthesis.assets import Library
from learning.synthesis.clips import clip_samples
from learning.synthesis.generate import make_sample, pair_features
from learning.synthesis.render import Layer, Stage, render, similarity
from learning.synthesis.sample import SIZE, Kind, Origin
from learning.synthesis.shapes import smooth_noise, surface
from learning.synthesis.shards import MOTION_STEP, Shards, pack_motion, unpack_motion


def _textured(seed: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(128 + 45 * np.stack([smooth_noise(rng, size, 40) for _ in range(3)], -1), 0, 255).astype(np.uint8)


def test_a_seed_gives_the_same_sample_and_another_seed_another(library: Library) -> None:
    for index in range(6):
        first, second = make_sample(library, 3, index), make_sample(library, 3, index)
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.ids, second.ids)
        assert (first.motion is None) == (second.motion is None)
        if first.motion is not None and second.motion is not None:
            np.testing.assert_array_equal(first.motion, second.motion)
        assert not np.array_equal(first.image, make_sample(library, 4, index).image)


def test_labels_are_where_the_pixels_of_the_object_are() -> None:
    canvas = np.zeros((*SIZE, 3), np.uint8)
    red = np.zeros((60, 90, 4), np.uint8)
    red[5:-5, 5:-5] = (0, 0, 255, 255)
    red[..., 2] = 255
    place = np.linalg.inv(similarity((0, 0), (120.5, 70.25), 0.3, 1.2))
    stage = Stage(canvas, np.eye(3), np.eye(3), None, [Layer(red, place, np.eye(3), 7)])
    _, current, ids = render(stage, pair=False)
    np.testing.assert_array_equal(ids == 7, current[..., 2] >= 128)
    assert 50 * 80 * 1.44 * 0.97 < (ids == 7).sum() < 50 * 80 * 1.44 * 1.03


def test_the_front_layer_hides_the_one_behind() -> None:
    full = np.full((SIZE[0], SIZE[1], 4), 255, np.uint8)
    small = np.full((40, 40, 4), 255, np.uint8)
    place = np.linalg.inv(similarity((0, 0), (100, 100), 0, 1))
    layers = [Layer(full, np.eye(3), np.eye(3), 1), Layer(small, place, np.eye(3), 2)]
    _, _, ids = render(Stage(_textured(0, SIZE), np.eye(3), np.eye(3), None, layers), pair=False)
    assert (ids[100:139, 100:139] == 2).all()
    assert ids[50, 50] == 1


def test_features_show_the_motion_a_layer_was_given() -> None:
    shift = np.array([6.0, -4.0])
    rgba = np.dstack([_textured(1, (110, 130)), np.full((110, 130), 255, np.uint8)])
    place = np.linalg.inv(similarity((0, 0), (150, 70), 0, 1))
    motion = similarity((0, 0), tuple(shift), 0, 1)
    stage = Stage(_textured(2, SIZE), np.eye(3), np.eye(3), None, [Layer(rgba, place, motion, 1)])
    previous, current, ids = render(stage, pair=True)
    assert previous is not None
    features = pair_features(previous, current)
    inside = cv2.resize(cv2.erode(ids, np.ones((21, 21))), FLOW_SIZE[::-1], interpolation=cv2.INTER_NEAREST) > 0
    # Backward flow on the 0.75 grid: where the content was, so against the motion; stored as v / sqrt(1 + |v|).
    expected = -shift * 0.75
    expected = expected / np.sqrt(1 + np.abs(expected))
    for channel in (0, 1):
        assert np.median(features[channel][inside]) == pytest.approx(expected[channel], abs=0.12)
    outside = cv2.resize(cv2.dilate(ids, np.ones((41, 41))), FLOW_SIZE[::-1], interpolation=cv2.INTER_NEAREST) == 0
    assert np.abs(features[:2, outside]).mean() < 0.1


def test_stored_features_are_what_the_engine_computes_from_the_same_frames(tmp_path: Path) -> None:
    large = [_textured(3, (480, 854)), np.roll(_textured(3, (480, 854)), 9, axis=1)]
    estimator = MotionEstimator()
    served = []
    for frame in large:
        small = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
        served.append(network_features(estimator.step(small), SIZE))
    assert not served[0].any()
    batches = pytest.importorskip("learning.batches")
    previous, current = (cv2.resize(f, SIZE[::-1], interpolation=cv2.INTER_AREA) for f in large)
    exact = pair_features(previous, current)
    np.testing.assert_array_equal(batches.motion_input(exact), served[1])
    trained = batches.motion_input(unpack_motion(pack_motion(exact)))
    inside_range = np.abs(served[1]) < 120 * MOTION_STEP[:, None, None]
    error = np.abs(trained - served[1])
    assert (error <= 0.501 * MOTION_STEP[:, None, None])[inside_range].all()


def test_ids_and_kinds_agree(library: Library) -> None:
    seen = set()
    for index in range(30):
        sample = make_sample(library, 1, index)
        present = set(np.unique(sample.ids).tolist()) - {0}
        assert {i for i in range(32) if sample.kinds[i] != Kind.ABSENT} == present
        if sample.motion is None:
            assert Kind.MOVING not in sample.kinds
        if sample.origin in (Origin.PEOPLE, Origin.COCO, Origin.ANIMALS):
            assert not np.isin(sample.kinds, (Kind.MOVING, Kind.DISTRACTOR)).any()
        seen |= {Kind(k) for k in sample.kinds[list(present)]} if present else set()
    assert {Kind.MOVING, Kind.STATIC, Kind.DISTRACTOR} <= seen


def test_held_out_samples_use_other_pictures(library: Library) -> None:
    a, b = make_sample(library, 0, 0), make_sample(library, 0, 0, held_out=True)
    assert not np.array_equal(a.image, b.image)


def test_clips_give_frames_with_motion_and_no_labels(picture_folder: Path) -> None:
    samples = list(clip_samples(sorted((picture_folder / "clips").glob("*/*.mp4")), seed=0))
    assert len(samples) >= 5
    for sample in samples:
        assert sample.motion is not None
        assert sample.origin == Origin.CLIP
        assert not sample.ids.any()


def test_surfaces_fill_their_size() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert surface(rng, (50, 70), None).shape == (50, 70, 3)


def test_command_renders_and_resumes(picture_folder: Path, tmp_path: Path) -> None:
    arguments = [
        "--data",
        str(picture_folder),
        "--out",
        str(tmp_path),
        "--limit",
        "3",
        "--workers",
        "1",
        "--held-out",
        "2",
    ]
    assert command.main([*arguments, "--samples", "4", "--shard-samples", "2"]) == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("train_*.shard")}
    assert len(before) == 2
    assert command.main([*arguments, "--samples", "6", "--shard-samples", "2"]) == 0
    assert len(Shards(tmp_path)) == 6
    assert len(Shards(tmp_path, "held")) == 2
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_missing_data_is_one_line_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_shards_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"learning\.synthesis"):
        Shards(tmp_path)
