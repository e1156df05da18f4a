"""The unseen-class protocol: what its parts promise, and the whole at the smallest size."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the learn extra")
pytest.importorskip("pybullet", reason="needs the sim extra")

import torch

from benchmarks.unseen import experiment, families, labels, mining, report, scores
from benchmarks.unseen.__main__ import main
from benchmarks.unseen.detector import detections, network_image, write_model
from benchmarks.unseen.labels import ENGINES, OURS, label_map, watch
from benchmarks.unseen.mining import Miner
from benchmarks.unseen.plan import QUICK, SIZE
from benchmarks.unseen.training import IGNORED_ID, LabelledFrame, Mixture, new_network, read_network, train
from benchmarks.unseen.world import World, over, read_backgrounds
from engine.errors import SourceError, StoreError
from engine.perceive.network import Network
from engine.percepts import Percepts
from engine.scene import Object, Scene
from learning.average_precision import Answer
from learning.baselines import instance_masks
from learning.networks.compact import Compact, CompactConfig
from learning.synthesis.shapes import surface

TINY = dataclasses.replace(
    QUICK,
    train_stills=3,
    check_stills=2,
    seen_stills=2,
    unseen_stills=2,
    videos=1,
    frames=6,
    base_steps=2,
    tune_steps=1,
    batch=2,
    detector=CompactConfig(8, 4, (8, 8, 8, 8), (1, 1, 1), (8, 8, 8), 4, 4, 8),
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures in the layout of the data folder."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("photos", "textures"):
        (folder / name).mkdir()
        for number in range(4):
            cv2.imwrite(str(folder / name / f"{number}.png"), surface(rng, (200, 300), None))
    return folder


@pytest.fixture(scope="session")
def world(data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A rendered world of the smallest size."""
    made = World(tmp_path_factory.mktemp("world"), data, TINY, 3)
    made.render()
    return made


@pytest.fixture(scope="session")
def network() -> Compact:
    """An untrained network."""
    return new_network(TINY.detector, 0).eval()


@pytest.fixture(scope="session")
def model(network: Compact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained network as the engine loads it."""
    path = tmp_path_factory.mktemp("model") / "base.onnx"
    write_model(network, path, "base")
    return path


def test_solids_fill_the_unit_ball_and_families_differ() -> None:
    import pybullet_data

    rng = np.random.default_rng(1)
    meshes = Path(pybullet_data.getDataPath())
    for made in [families.seen_solid(rng) for _ in range(8)] + [families.mesh_solid(meshes, n) for n in (0, 999)]:
        assert np.linalg.norm(made.vertices, axis=1).max() == pytest.approx(1.0)
        assert len(made.vertices) == len(made.normals) == len(made.uvs)
        assert len(made.vertices) % 3 == 0
        assert made.uvs.min() >= 0
        assert made.uvs.max() <= 1
        lengths = np.linalg.norm(made.normals, axis=1)
        assert ((lengths < 1.001) & ((lengths > 0.999) | (lengths < 1e-3))).all()


def test_meshes_of_the_videos_never_come_back_in_the_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[bool, set[int]] = {True: set(), False: set()}
    for held_out in (True, False):
        monkeypatch.setattr(families, "mesh_solid", lambda data, number, part=held_out: asked[part].add(number))
        rng = np.random.default_rng(2)
        for _ in range(4000):
            families.unseen_solid(rng, Path(), held_out)
    assert not asked[True] & asked[False]
    assert len(asked[True] | asked[False]) > 900


def test_training_videos_and_held_out_stills_share_no_photograph(data: Path) -> None:
    parts = read_backgrounds(data, 5)
    contents = {name: {picture.tobytes() for picture in pictures} for name, pictures in parts.items()}
    assert sum(len(part) for part in contents.values()) == len(set.union(*contents.values())) == 8
    assert all(contents.values())


def test_too_few_photographs_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="0 pictures"):
        read_backgrounds(tmp_path, 0)


def test_a_part_that_was_lost_is_rendered_again_the_same(world: World, data: Path, tmp_path: Path) -> None:
    again = World(tmp_path, data, TINY, 3)
    again.render()
    (tmp_path / "video_000.npz").unlink()
    (tmp_path / "unseen_000.npz").unlink()
    kept = (tmp_path / "seen_000.npz").stat().st_mtime_ns
    again.render()
    assert (tmp_path / "seen_000.npz").stat().st_mtime_ns == kept
    for part in ("train", "seen", "unseen", "video"):
        np.testing.assert_array_equal(again.pictures(part).images, world.pictures(part).images)
        np.testing.assert_array_equal(again.pictures(part).ids, world.pictures(part).ids)


def test_ids_lie_where_the_objects_were_drawn(world: World) -> None:
    stills = world.pictures("train")
    assert stills.layers.shape == (TINY.train_stills, *SIZE, 4)
    inside = stills.layers[..., 3] >= 127  # half covered
    # Only slivers may be without an id, and nothing outside an object has one.
    assert not (stills.ids[~inside] > 0).any()
    assert (stills.ids[inside] > 0).mean() > 0.9
    solid = stills.layers[..., 3] == 255
    np.testing.assert_array_equal(stills.images[solid], stills.layers[..., :3][solid])


def test_objects_of_a_video_move_and_keep_their_ids(world: World) -> None:
    video = world.pictures("video")
    assert len(video) == TINY.frames
    moved = []
    for value in np.intersect1d(np.unique(video.ids[0]), np.unique(video.ids[-1])):
        first, last = video.ids[0] == value, video.ids[-1] == value
        if value:
            moved.append((first & last).sum() / (first | last).sum())
    assert moved
    assert min(moved) < 0.98
    assert np.mean(moved) > 0.2


def test_a_layer_covers_by_its_alpha() -> None:
    layer = np.full((2, 2, 4), 200, np.uint8)
    layer[..., 3] = [[0, 255], [51, 102]]
    expected = np.array([[100, 200], [120, 140]], np.uint8)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(over(layer, np.full((2, 2, 3), 100, np.uint8)), expected)


def test_the_engine_loads_the_model_and_sees_what_the_network_sees(network: Compact, model: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    loaded = Network(model, threads=1)
    assert loaded.size == SIZE
    assert not loaded.uses_motion
    found = loaded.run(image, None)
    with torch.no_grad():
        expected = network(network_image(image), torch.zeros(1, 5, SIZE[0] // 2, SIZE[1] // 2))
    assert found.background is not None
    np.testing.assert_allclose(found.background, expected.background[0, 0].numpy(), atol=2e-3)


def test_detections_are_masks_of_the_picture_without_copies(network: Compact) -> None:
    image = np.random.default_rng(4).integers(0, 256, (*SIZE, 3), np.uint8)
    found = detections(network, image)
    assert found.masks.shape == (len(found.scores), *SIZE)
    assert (np.diff(found.scores) <= 0).all()


def _mixture(world: World, data: Path, mined: list[LabelledFrame], share: float, seed: int = 0) -> Mixture:
    backgrounds = read_backgrounds(data, 3)["train"]
    return Mixture(world.pictures("train"), backgrounds, mined, share, 4, np.random.default_rng(seed))


def test_open_pixels_weigh_nothing_and_mined_frames_are_half_of_a_batch(world: World, data: Path) -> None:
    open_everywhere = LabelledFrame(np.zeros((*SIZE, 3), np.uint8), np.full(SIZE, IGNORED_ID, np.uint8))
    batch = _mixture(world, data, [open_everywhere], 0.5).draw()
    assert batch.image.shape == (4, 3, *SIZE)
    assert float(batch.binary_weight[:2].sum()) == 0
    assert float(batch.heat_weight[:2].sum()) == 0
    assert float(batch.valid[:2].sum()) == 0
    # Composites are labelled in every pixel, and say nothing about motion.
    assert float(batch.binary_weight[2:].min()) == 1
    assert float(batch.valid[2:].sum(dim=1).min()) >= 1
    assert float(batch.motion.abs().sum()) == 0


def test_without_mined_frames_a_batch_is_all_replay(world: World, data: Path) -> None:
    assert float(_mixture(world, data, [], 0.5).draw().binary_weight.min()) == 1


def test_an_interrupted_training_goes_on_where_it_was(
    world: World, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    class Mortal(Mixture):
        drawn = 0

        def draw(self):  # type: ignore[no-untyped-def]
            Mortal.drawn += 1
            if Mortal.drawn > 2:
                raise Killed
            return super().draw()

    mortal = _mixture(world, data, [], 0.5)
    mortal.__class__ = Mortal
    monkeypatch.setattr("benchmarks.unseen.training._SAVE_EVERY_S", -1.0)
    out = tmp_path / "base.pt"
    with pytest.raises(Killed):
        train(new_network(TINY.detector, 1), mortal, 4, 1e-3, out)
    assert not out.exists()
    assert torch.load(out.with_suffix(".last"), weights_only=True)["step"] == 2
    updates = []
    monkeypatch.setattr("benchmarks.unseen.training._update", lambda *args: updates.append(1))
    train(new_network(TINY.detector, 1), _mixture(world, data, [], 0.5, 1), 4, 1e-3, out)
    assert len(updates) == 2
    assert not out.with_suffix(".last").exists()
    assert read_network(out).config == TINY.detector


def test_label_maps_put_the_better_mask_in_front_and_leave_doubt_open() -> None:
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 10:30, 10:30], masks[1, 20:40, 20:40] = True, True
    doubtful = np.zeros(SIZE, bool)
    doubtful[:, :25] = True
    ids = label_map(Answer(masks, np.array([0.4, 0.8])), doubtful)
    assert ids[25, 25] == ids[35, 35] == 1
    assert ids[12, 12] == 2
    assert ids[0, 0] == IGNORED_ID
    assert ids[0, 100] == 0
    assert (label_map(Answer(masks, np.array([0.4, 0.8])), None) < IGNORED_ID).all()


def _percepts(residual: np.ndarray | None) -> Percepts:
    """Nothing in sight but one candidate of score 0.5 in the upper left quarter."""
    grid = (SIZE[0] // 4, SIZE[1] // 4)
    masks = np.zeros((1, *grid), bool)
    masks[0, : grid[0] // 2, : grid[1] // 2] = True
    nothing = np.ones(grid, np.float32)
    return Percepts(masks, np.array([0.5], np.float32), nothing, None, residual, residual, masks - np.float32(0.5))


def test_doubt_is_under_candidates_half_believed_in_and_where_the_foreground_is_likely() -> None:
    percepts = _percepts(None)
    assert labels.doubtful_pixels(percepts)[:70, :130].all()
    assert not labels.doubtful_pixels(percepts)[90:].any()
    percepts.background[20:, 40:] = 0.7
    assert labels.doubtful_pixels(percepts)[100:, 180:].all()


def test_what_moves_against_the_camera_is_open() -> None:
    residual = np.random.default_rng(5).normal(0, 0.01, (2, SIZE[0] // 4, SIZE[1] // 4)).astype(np.float32)
    residual[0, 20:30, 20:30] += 0.5
    moving = labels.moving_pixels(_percepts(residual))
    assert moving[84:116, 84:116].all()
    assert moving.sum() < 1.5 * 40 * 40
    assert not labels.moving_pixels(_percepts(None)).any()


def test_a_mask_steps_when_it_moves_otherwise_than_its_surroundings() -> None:
    residual = np.zeros((2, SIZE[0] // 4, SIZE[1] // 4), np.float32)
    residual[:] = np.array([0.3, -0.2], np.float32)[:, None, None]
    mask = np.zeros(residual.shape[1:], bool)
    mask[10:20, 20:30] = True
    assert labels.motion_step(mask, residual) == pytest.approx(0, abs=1e-6)
    residual[:, mask] += np.array([0.6, 0.8], np.float32)[:, None]
    assert labels.motion_step(mask, residual) == pytest.approx(1, abs=1e-5)
    assert labels.motion_step(np.ones_like(mask), residual) == 0
    assert labels.motion_step(np.zeros_like(mask), residual) == 0


def _scene(index: int, *objects: tuple[int, float]) -> Scene:
    """Objects of (id, score), side by side in cells of 40x40 pixels."""
    ids = np.zeros(SIZE, np.uint16)
    found = []
    for number, (identity, score) in enumerate(objects):
        x = 60 * number
        ids[10:50, x + 10 : x + 50] = number + 1
        found.append(Object(identity, number + 1, score, (x + 10, 10, x + 50, 50), 1600, 5, 0.0, 1.0))
    return Scene(index, "final", ids, tuple(found), "video", index)


def test_only_what_lasts_and_is_plain_or_moves_becomes_a_label_and_the_rest_is_open() -> None:
    still = np.zeros((2, SIZE[0] // 4, SIZE[1] // 4), np.float32)
    # 1 is plain, 2 is neither plain nor moving, 3 comes for one frame only, 4 scores too low.
    scenes = [_scene(t, (1, 0.9), (2, 0.5), (30 + t, 0.9), (4, 0.3)) for t in range(9)]
    watched = [labels.Watched(_percepts(still), {OURS: scene}) for scene in scenes]
    assert [item.id for item in labels.believed(watched, 4, OURS)] == [1]
    moving = still.copy()
    moving[0, 3:12, 18:27] = 0.5
    watched[4] = labels.Watched(_percepts(moving), {OURS: scenes[4]})
    chosen = labels.believed(watched, 4, OURS)
    assert [item.id for item in chosen] == [1, 2]
    ids = labels.scene_labels(scenes[4], chosen, np.zeros(SIZE, bool))
    assert ids[30, 30] == 1
    assert ids[30, 90] == 2
    assert ids[30, 150] == ids[30, 210] == IGNORED_ID
    assert ids[100, 100] == 0


def test_every_engine_settles_every_frame_of_a_video(world: World, model: Path) -> None:
    images = list(world.pictures("video").images)
    watched = watch(images, Network(model, threads=1))
    assert len(watched) == len(images)
    for index, frame in enumerate(watched):
        assert set(frame.finals) == set(ENGINES)
        assert all(s.kind == "final" and s.frame_index == index and s.commit for s in frame.finals.values())


def test_mining_is_resumed_and_labels_by_truth_are_the_truth(
    world: World, network: Compact, model: Path, tmp_path: Path
) -> None:
    miner = Miner(tmp_path, world, TINY, network, model)
    miner.mine(miner.missing())
    stamp = (tmp_path / "labels_000.npz").stat().st_mtime_ns
    assert not miner.missing()
    miner.mine([])
    assert (tmp_path / "labels_000.npz").stat().st_mtime_ns == stamp
    video = world.pictures("video")
    (frame,) = miner.labels("training on truth")
    index = TINY.label_every - 1
    np.testing.assert_array_equal(frame.image, video.images[index])
    np.testing.assert_array_equal(frame.ids > 0, video.ids[index] > 0)
    found = miner.quality("training on truth")
    assert found["precision"] == found["recall"] == found["mean_iou"] == 1
    assert found["objects"] == len(instance_masks(video.ids[index]))
    for method in mining.METHODS:
        assert all((f.ids > 0).any() for f in miner.labels(method))


def test_a_perfect_detector_scores_one_hundred(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stills = world.pictures("seen")
    truths = {image.tobytes(): ids for image, ids in zip(stills.images, stills.ids, strict=True)}

    def perfect(network: Compact, image: np.ndarray) -> Answer:
        masks = instance_masks(truths[image.tobytes()])
        return Answer(masks, np.ones(len(masks)))

    monkeypatch.setattr(scores, "detections", perfect)
    found = scores.score(Compact(TINY.detector), stills)
    assert set(found) == set(scores.FIGURES)
    assert found["AP"] == found["AP50"] == found["AR5"] == pytest.approx(100)
    counts = [len(instance_masks(ids)) for ids in stills.ids]
    assert found["AR1"] == pytest.approx(100 * len(counts) / sum(counts))


def test_efficiency_is_the_papers_and_spread_is_the_sample_deviation() -> None:
    assert scores.efficiency(39.0, 35.8, 42.7) == pytest.approx(0.46, abs=0.005)
    assert scores.efficiency(1.0, 1.0, 1.0) is None
    values = [1.0, 2.0, 4.0]
    assert scores.spread(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert scores.spread([3.0]) == (3.0, 0.0)


def _rows(ours: float, seen_after: float) -> dict[str, experiment.Row]:
    unseen = dict.fromkeys(experiment.ROWS, 20.0) | {OURS: ours, report.BY_TRUTH: 40.0}
    seen = dict.fromkeys(experiment.ROWS, 60.0) | {OURS: seen_after}
    return {
        row: {"unseen": dict.fromkeys(scores.FIGURES, unseen[row]), "seen": dict.fromkeys(scores.FIGURES, seen[row])}
        for row in experiment.ROWS
    }


def test_the_summary_says_what_was_shown_and_what_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = {0: _rows(30.0, 59.6), 1: _rows(20.0, 59.0)}
    summary = report.summarise(seeds)
    good, bad = summary["per_seed"][0], summary["per_seed"][1]
    assert good["efficiency"] == pytest.approx(0.5)
    assert good["efficiency_reached"]
    assert good["seen_kept"]
    assert all(good["better_than"].values())
    assert not bad["efficiency_reached"]
    assert not bad["seen_kept"]
    assert not any(bad["better_than"].values())
    assert summary["efficiency_of_means"] == pytest.approx(0.25)
    assert summary["mean_and_spread"][OURS]["unseen"]["AP"] == pytest.approx((25.0, 50**0.5))
    json.dumps(summary, allow_nan=False)
    report.plot(summary, seeds, tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    # One bar is green: ours.
    assert (picture == (80, 160, 40)).all(axis=2).any()
    report.print_table(summary, 2)
    printed = capsys.readouterr().out
    assert "better than every baseline" in printed
    assert "not better than before" in printed


def test_a_folder_of_another_plan_is_refused(tmp_path: Path) -> None:
    experiment.check_plan(tmp_path, QUICK)
    experiment.check_plan(tmp_path, QUICK)
    with pytest.raises(StoreError, match="another plan"):
        experiment.check_plan(tmp_path, TINY)


def test_a_missing_data_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", str(tmp_path / "a.json"), "--work", str(tmp_path / "work"), "--quick", "--jobs", "1"]
    assert main([*arguments, "--data", str(tmp_path / "nowhere")]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_whole_protocol_at_its_smallest(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", str(tmp_path / "a.json"), "--work", str(tmp_path / "work"), "--data", str(data)]
    assert main([*arguments, "--quick", "--seeds", "2", "--jobs", "2"]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert set(content["seeds"]) == {"0", "1"}
    for rows in content["seeds"].values():
        assert set(rows) == set(experiment.ROWS)
    assert (tmp_path / "a.png").is_file()
    # Everything is there: a second start only reads it.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert main([*arguments, "--quick", "--seeds", "2", "--jobs", "1"]) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
