"""Samples are reproducible, their labels fit their pixels, their features are the engine's."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import StoreError, UsageError
from engine.perceive.motion import FEATURE_SIZE, MotionEstimator, network_features
from learning.synthesis import __main__ as command
from learning.synthesis import assets, cast, compose, piles
from learning.synthesis.articulation import FIELD, draw_articulation, outline_points, skinned_field
from learning.synthesis.assets import Library, build_library
from learning.synthesis.generate import make_sample, pair_features
from learning.synthesis.light import Light
from learning.synthesis.render import Layer, Stage, render, similarity, transform
from learning.synthesis.sample import SIZE, Kind, Origin
from learning.synthesis.shapes import smooth_noise, surface
from learning.synthesis.shards import MOTION_STEP, Shards, pack_motion, unpack_motion
from learning.synthesis.smoke import smoke_pixels
from learning.synthesis.water import flood, reflection, wake, wave_field


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
    inside = cv2.resize(cv2.erode(ids, np.ones((21, 21))), FEATURE_SIZE[::-1], interpolation=cv2.INTER_NEAREST) > 0
    # Backward flow in pixels of the flow grid, 0.75 x the frame, so against the motion; stored as v / sqrt(1 + |v|).
    expected = -shift * 0.75
    expected = expected / np.sqrt(1 + np.abs(expected))
    for channel in (0, 1):
        assert np.median(features[channel][inside]) == pytest.approx(expected[channel], abs=0.12)
    outside = cv2.resize(cv2.dilate(ids, np.ones((41, 41))), FEATURE_SIZE[::-1], interpolation=cv2.INTER_NEAREST) == 0
    assert np.abs(features[:2, outside]).mean() < 0.1


def test_stored_features_are_what_the_engine_computes_from_the_same_frames(tmp_path: Path) -> None:
    large = [_textured(3, (480, 854)), np.roll(_textured(3, (480, 854)), 9, axis=1)]
    estimator = MotionEstimator()
    served = []
    for frame in large:
        small = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
        served.append(network_features(estimator.step(small), FEATURE_SIZE))
    assert not served[0].any()
    previous, current = (cv2.resize(f, SIZE[::-1], interpolation=cv2.INTER_AREA) for f in large)
    exact = pair_features(previous, current)
    np.testing.assert_array_equal(exact, served[1])
    trained = unpack_motion(pack_motion(exact))
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


_PIXELS = np.stack(np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), axis=-1).astype(np.float32)


def test_a_part_is_displaced_as_its_motion_says() -> None:
    weights = np.zeros((2, *FIELD), np.float32)
    weights[0, :, :56], weights[1, :, 56:] = 1, 1
    turn = similarity((300.0, 120.0), (2.0, -3.0), 0.1, 1.0)
    field = skinned_field(weights, [np.eye(3), turn])
    assert not field[:, :56].any()
    # Grid point (row 30, column 80) is the middle of frame pixels 120..123 and 320..323.
    point = np.array([321.5, 121.5], np.float32)
    np.testing.assert_allclose(field[30, 80], transform(np.linalg.inv(turn), point) - point, atol=1e-3)


def test_the_previous_frame_of_an_articulated_object_is_the_warped_current_one() -> None:
    rng = np.random.default_rng(4)
    rgba = np.dstack([_textured(5, (200, 90)), np.full((200, 90), 255, np.uint8)])
    place = np.linalg.inv(similarity((0, 0), (180.0, 28.0), 0, 1))
    motion, ground = similarity((225.0, 128.0), (4.0, 1.0), 0.02, 1.0), np.eye(3)
    points = outline_points(rgba, place)
    bend = draw_articulation(rng, points, motion, ground)
    assert np.abs(bend).max() > 2
    canvas = np.zeros((*SIZE, 3), np.uint8)
    previous, current, ids = render(
        Stage(canvas, np.eye(3), np.eye(3), None, [Layer(rgba, place, motion, 3, bend)]), True
    )
    assert previous is not None
    # The label is the outline in the current frame, which the articulation must not touch.
    np.testing.assert_array_equal(ids[30:226, 182:268], 3)
    assert (ids > 0).sum() < 201 * 91
    source = transform(motion, _PIXELS + cv2.resize(bend, SIZE[::-1]))
    expected = cv2.remap(current, source, None, cv2.INTER_LINEAR)
    inside = cv2.remap(cv2.erode(ids, np.ones((7, 7))), source, None, cv2.INTER_NEAREST) > 0
    assert inside.sum() > 5000
    assert np.abs(expected.astype(int) - previous)[inside].mean() < 4


def test_an_open_shutter_smears_along_the_motion_only() -> None:
    rgba = np.full((60, 60, 4), 255, np.uint8)
    place = np.linalg.inv(similarity((0, 0), (200.0, 100.0), 0, 1))
    layer = Layer(rgba, place, similarity((0, 0), (16.0, 0.0), 0, 1), 1)
    black = np.zeros((*SIZE, 3), np.uint8)
    widths = []
    for exposure in (0.0, 0.9):
        _, current, ids = render(Stage(black, np.eye(3), np.eye(3), None, [layer], exposure), pair=False)
        partly = (current[..., 0] > 20) & (current[..., 0] < 235)
        widths.append((int(partly[130].sum()), int(partly[:, 230].sum()), int((ids == 1).sum())))
    assert widths[1][0] >= widths[0][0] + 8
    assert widths[1][1] == widths[0][1]
    assert widths[1][2] == pytest.approx(widths[0][2], rel=0.06)


def test_smoke_is_background_and_hides_what_is_behind_it() -> None:
    thick = smoke_pixels(np.random.default_rng(0), 1.0)
    thin = smoke_pixels(np.random.default_rng(0), 0.3)
    body = Layer(np.full((160, 160, 4), 255, np.uint8), np.eye(3), np.eye(3), 1)
    black = np.zeros((*SIZE, 3), np.uint8)
    for cloud in (thick, thin):
        _, _, ids = render(
            Stage(black, np.eye(3), np.eye(3), None, [body, Layer(cloud, np.eye(3), np.eye(3), 0)]), False
        )
        np.testing.assert_array_equal(ids[:160, :160] == 0, cloud[..., 3] > 127)
    assert (thick[..., 3] > 127).sum() > 500
    assert not (thin[..., 3] > 127).any()


def test_water_leaves_the_labels_of_the_object_alone() -> None:
    rng = np.random.default_rng(1)
    rgba = np.full((60, 80, 4), 255, np.uint8)
    place = np.linalg.inv(similarity((0, 0), (200.0, 80.0), 0, 1))
    body = Layer(rgba, place, similarity((0, 0), (5.0, 2.0), 0, 1), 1, foot=(240.0, 140.0))
    waves = wave_field(rng, 100.0)
    assert not waves[:100].any()
    assert waves[130:].std() > 0.2
    alone = render(Stage(_textured(0, SIZE), np.eye(3), np.eye(3), None, [body]), False)
    around = [reflection(rng, body, waves), wake(rng, body, np.eye(3), 80.0, waves), body]
    wet = render(Stage(_textured(0, SIZE), np.eye(3), np.eye(3), waves, around), False)
    np.testing.assert_array_equal(wet[2], alone[2])
    below = np.abs(wet[1][150:190, 210:270].astype(int) - alone[1][150:190, 210:270])
    assert below.mean() > 10


@pytest.mark.parametrize("shore", [0, 1, 7, 8, 100, 200, 287, 288])
def test_flooding_keeps_the_shore_dry(shore: int) -> None:
    canvas = _textured(2, (288, 504))
    out = flood(np.random.default_rng(0), canvas, shore)
    np.testing.assert_array_equal(out[:shore], canvas[:shore])
    if shore <= 200:
        assert not np.array_equal(out[shore + 8 :], canvas[shore + 8 :])


def test_light_changes_the_previous_frame_by_at_most_a_sixth_or_locally() -> None:
    grey, changed = np.full((*SIZE, 3), 100, np.uint8), 0
    for seed in range(40):
        light = Light.draw(np.random.default_rng(seed))
        if light.glow is None:
            np.testing.assert_array_equal(light.apply(grey, previous=False), grey)
            assert np.abs(light.apply(grey, previous=True).mean() - 100) < 17
            changed += bool((light.gain != 1).all())
    assert 2 <= changed <= 16


def test_rendered_piles_have_an_id_for_every_item(library: Library) -> None:
    pytest.importorskip("pybullet")
    assert len(library.piles) == len(library.pile_ids) == 6
    assert max(int(ids.max()) for ids in library.pile_ids) >= 3
    for image, ids in zip(library.piles, library.pile_ids, strict=True):
        assert image.shape == (288, 504, 3)
        assert image.std() > 2
        values = np.unique(ids)[1:]
        np.testing.assert_array_equal(values, np.arange(1, len(values) + 1))


def test_without_the_renderer_the_library_has_no_piles_and_samples_still_come(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("learning.synthesis.assets.pybullet_available", lambda: False)
    library = build_library(picture_folder, tmp_path, seed=0, limit=3)
    assert "pybullet" in capsys.readouterr().out
    assert len(library.piles) == 0
    for index in range(12):
        make_sample(library, 0, index)


def test_held_out_samples_use_other_pictures(library: Library) -> None:
    a, b = make_sample(library, 0, 0), make_sample(library, 0, 0, held_out=True)
    assert not np.array_equal(a.image, b.image)


def test_no_source_is_in_both_the_training_and_the_held_out_part(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[tuple[str, bool], set[int]] = {}

    def watched(rng: np.random.Generator, groups: np.ndarray, held_out: bool) -> int:
        for name in ("image_groups", "background_groups", "cutout_groups", "pile_groups"):
            if np.shares_memory(groups, getattr(library, name)):
                index = assets.choose(rng, groups, held_out)
                drawn.setdefault((name, held_out), set()).add(int(groups[index]))
                return index
        raise AssertionError("drawn without regard to the source")

    for module in (cast, compose, piles):
        monkeypatch.setattr(module, "choose", watched)
    for index in range(60):
        make_sample(library, 5, index, held_out=index % 2 == 0)
    names = {name for name, _ in drawn}
    assert names >= {"image_groups", "background_groups", "cutout_groups"}
    for name in names:
        assert drawn[name, True]
        assert not drawn[name, True] & drawn[name, False]


def test_what_comes_from_one_source_is_one_group(library: Library) -> None:
    coco = library.image_groups[library.sources == assets.SOURCES.index("coco")]
    assert np.unique(coco, return_counts=True)[1].tolist() == [2] * 5
    assert np.unique(library.background_groups, return_counts=True)[1].tolist() == [3] * 10 + [2]
    np.testing.assert_array_equal(library.pile_groups, np.arange(len(library.piles)) // 3)
    natural = library.cutout_groups[: library.shapes_from]
    # A cut-out goes with the photograph it is cut from.
    for group, origin in zip(natural, library.origins, strict=False):
        assert set(library.sources[library.image_groups == group]) == {origin}


def test_clips_kept_apart_are_no_backgrounds(library: Library) -> None:
    white = [background.min() > 240 for background in library.backgrounds]
    assert not any(white)


def test_an_empty_part_is_named(library: Library) -> None:
    with pytest.raises(UsageError, match="no held-out picture among 3"):
        assets.choose(np.random.default_rng(0), np.array([1, 2, 17]), held_out=True)


@pytest.mark.parametrize("marker", ["", "1\n"])
def test_pictures_prepared_by_another_version_are_refused(
    marker: str, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "done").write_text(marker)
    with pytest.raises(StoreError, match="version 1"):
        assets.open_library(tmp_path / "assets")
    assert command.main(["--data", str(picture_folder), "--out", str(tmp_path)]) == 5
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(StoreError, match=r"learning\.synthesis"):
        assets.open_library(tmp_path)


def _change(shard: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(shard / f"{name}.npy", change(np.load(shard / f"{name}.npy")))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("motion", lambda a: a[:, :, ::2, ::2]),
        ("motion", lambda a: a.astype(np.float32)),
        ("kinds", lambda a: a[:, :16]),
        ("origin", lambda a: a[:1]),
    ],
)
def test_shards_of_another_version_are_refused(
    name: str, change: Callable[[np.ndarray], np.ndarray], shard_folder: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "held_0000.shard"
    shutil.copytree(shard_folder / shard.name, shard)
    assert len(Shards(tmp_path, "held")) == 8
    _change(shard, name, change)
    with pytest.raises(StoreError, match="render it again") as caught:
        Shards(tmp_path, "held")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY"])
def test_a_torn_shard_is_refused(content: bytes | None, shard_folder: Path, tmp_path: Path) -> None:
    shard = tmp_path / "held_0000.shard"
    shutil.copytree(shard_folder / shard.name, shard)
    (shard / "ids.npy").unlink()
    if content is not None:
        (shard / "ids.npy").write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        Shards(tmp_path, "held")


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
    # As a process of its own: the workers have to find their code by name.
    module = [sys.executable, "-m", "learning.synthesis"]
    subprocess.run([*module, *arguments, "--samples", "4", "--shard-samples", "2"], check=True, capture_output=True)
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
