"""The labelling command: split, shards, resuming, errors; and the measure on clips kept apart."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import ModelError, SourceError
from engine.perceive.motion import FEATURE_SIZE
from learning import label as label_module
from learning.consistency import View, clip_consistency, combine
from learning.contact_sheet import main as draw_sheet
from learning.footage import clip_group, find_clips, is_held_out, read_window, spread
from learning.label import main
from learning.synthesis.sample import Kind, Origin
from learning.synthesis.shards import Shards
from streaming.sources.demo import DemoSource

GRID = (64, 112)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of the built-in scene to label and one kept apart."""
    root = tmp_path_factory.mktemp("clips")
    names = [n for n in ("alpha", "beta", "gamma", "delta") if not is_held_out(Path(n))][:2]
    apart = next(f"kept{chr(97 + i)}" for i in range(26) if is_held_out(Path(f"kept{chr(97 + i)}")))
    for seed, name in enumerate([f"general/{names[0]}", f"robot/{names[1]}", f"general/{apart}"]):
        path = root / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (448, 256))
        source = DemoSource(f"demo://?seed={seed}&frames=12&size=256x448")
        while (frame := source.read()) is not None:
            writer.write(frame.image)
        writer.release()
    return root


def label(clips: Path, out: Path, model: Path, *more: str) -> int:
    arguments = ["--clips", str(clips), "--model", str(model), "--out", str(out), "--frames", "12", "--workers", "1"]
    return main([*arguments, *more])


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_shards_read_back_repeat_and_resume(clips: Path, motion_model: Path, tmp_path: Path) -> None:
    # The model without scores needs no proposals: motion alone makes the labels.
    assert label(clips, tmp_path / "a", motion_model) == 0
    assert label(clips, tmp_path / "b", motion_model) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    shards = Shards(tmp_path / "a", "label")
    assert len(shards) > 0
    for i in range(len(shards)):
        _, motion, ids, kinds, origin = shards[i]
        assert origin == Origin.CLIP
        assert motion is not None
        assert motion.shape == (5, *FEATURE_SIZE)
        assert np.abs(motion).max() > 0.1
        assert (kinds == Kind.MOVING).any()
        assert set(np.unique(ids)) - {0} <= set(np.flatnonzero(kinds))
    report = json.loads((tmp_path / "a" / "labels.json").read_text())
    assert report["general"]["clips"]["seen"] == report["robot"]["clips"]["seen"] == 1
    assert report["general"]["samples"] + report["robot"]["samples"] == len(shards)
    assert report["robot"]["samples"] <= 2
    assert report["general"]["frames"]["kept"] == report["general"]["samples"]

    # A finished shard is kept as it is; one without its account is made again.
    shard = next((tmp_path / "a").glob("label_*.shard"))
    before = (shard / "image.npy").stat().st_mtime_ns
    assert label(clips, tmp_path / "a", motion_model) == 0
    assert (shard / "image.npy").stat().st_mtime_ns == before
    shard.with_suffix(".json").unlink()
    assert label(clips, tmp_path / "a", motion_model) == 0
    assert (shard / "image.npy").stat().st_mtime_ns != before
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_settings_do_not_mix(
    clips: Path, motion_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(clips, tmp_path, motion_model) == 0
    capsys.readouterr()
    assert label(clips, tmp_path, motion_model, "--seed", "2") == 5
    message = capsys.readouterr().err.strip()
    assert "empty folder" in message
    assert "\n" not in message


def test_the_sheet_shows_every_kind_of_pixel(clips: Path, motion_model: Path, tmp_path: Path) -> None:
    assert label(clips, tmp_path, motion_model) == 0
    picture = tmp_path / "sheet.png"
    assert draw_sheet(["--data", str(tmp_path), "--out", str(picture), "--columns", "2", "--count", "4"]) == 0
    image = cv2.imread(str(picture))
    assert image.shape[1] == 2 * 224
    green = (image[..., 1].astype(int) - image[..., 0] > 60) & (image[..., 1].astype(int) - image[..., 2] > 60)
    assert green.any()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--out", "sheet.png", "--count", "0"], 2, "--count 0"),
        (["--out", "sheet.png", "--columns", "0"], 2, "--columns 0"),
        (["--out", "sheet.xyz"], 2, "'.xyz': give a .png or .jpg"),
        (["--out", "nowhere/sheet.png"], 5, "cannot be written"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_one_line(
    arguments: list[str], code: int, words: str, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments[1] = str(tmp_path / arguments[1])
    assert draw_sheet(["--data", str(shard_folder), "--prefix", "held", *arguments]) == code
    message = capsys.readouterr().err.strip()
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--clips", "/nowhere"], 2, "not a folder"),
        (["--clips", "{empty}"], 2, "no video"),
        (["--clips", "{clips}"], 2, "--out is missing"),
        (["--clips", "{clips}", "--frames", "2"], 2, "3 or more"),
        (["--clips", "{clips}", "--limit", "0"], 2, "--limit 0: must be 1 or more"),
        (["--clips", "{clips}", "--seed", "-1"], 2, "--seed -1: must be 0 or more"),
        (["--clips", "{clips}", "--model", "nosuch"], 4, "nosuch"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    code: int,
    words: str,
    clips: Path,
    motion_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.format(empty=tmp_path, clips=clips) for a in arguments]
    if "--model" not in filled:
        filled += ["--model", str(motion_model)]
    assert main(filled) == code
    message = capsys.readouterr().err.strip()
    assert words in message
    assert "\n" not in message


def test_an_unreadable_clip_is_counted_not_fatal(motion_model: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    name = next(n for n in ("broken", "bad", "torn") if not is_held_out(Path(n)))
    (tmp_path / "clips" / f"{name}.mp4").write_bytes(b"no video")
    assert label(tmp_path / "clips", tmp_path / "out", motion_model) == 0
    report = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert report["clips"]["frames"] == {"unreadable clip": 1}


def test_views_of_one_episode_stay_together() -> None:
    assert clip_group("droid_0003") == clip_group("droid_0004") == clip_group("droid_0005")
    assert clip_group("droid_0002") != clip_group("droid_0003")
    assert clip_group("bottle_0") == clip_group("bottle_1")
    assert clip_group("cups") == "cups"
    # A number alone says nothing of what it shows.
    assert clip_group("0001") == "0001"
    assert clip_group("_7") == "_7"
    share = np.mean([is_held_out(Path(f"droid_{3 * i:04d}.mp4")) for i in range(3000)])
    assert 0.045 < share < 0.085


def test_a_limit_is_kept_and_spread() -> None:
    videos = [Path(f"{i}.mp4") for i in range(10)]
    for limit in range(1, 13):
        chosen = spread(videos, limit)
        assert len(chosen) == len(set(chosen)) == min(limit, 10)
    assert spread(videos, 2) == [videos[0], videos[5]]


def test_a_model_that_changes_on_the_way_is_refused(clips: Path, motion_model: Path, tmp_path: Path) -> None:
    # The account of the shard would name a network that did not make it.
    settings = label_module.Settings(12, 1, 1, 1, 1, "0" * 12)
    with pytest.raises(ModelError, match="changed while labelling"):
        label_module.label_clips(find_clips(clips)[:1], tmp_path, motion_model, settings, workers=1)
    assert contents(tmp_path) == {}


def test_windows_are_read_from_where_they_start(clips: Path) -> None:
    video = find_clips(clips)[0]
    whole, part = read_window(video, 0, 12), read_window(video, 5, 3)
    assert len(whole) == 12
    np.testing.assert_array_equal(part, whole[5:8])
    assert read_window(video, 12, 3) == []


def views(foregrounds: list[np.ndarray], step_px: float, moving: np.ndarray) -> list[View]:
    """A region `moving` in the first frame that walks to the right by `step_px` grid pixels per frame.

    The flow is the same everywhere, so that nothing is uncovered and the warp is exact.
    """
    out = []
    for t, foreground in enumerate(foregrounds):
        flow, residual = np.zeros((2, *GRID), np.float32), np.zeros((2, *GRID), np.float32)
        flow[0] = -step_px
        residual[0][np.roll(moving, round(step_px * t), axis=1)] = -step_px
        out.append(View(foreground, flow if t else None, residual if t else None))
    return out


def test_a_right_map_is_perfect_and_a_lazy_one_worthless() -> None:
    thing = np.zeros(GRID, bool)
    thing[20:40, 20:40] = True
    right = [np.roll(thing, 2 * t, axis=1) for t in range(5)]
    figures = combine({"a": [views(right, 2, thing)]})
    assert (figures.stability, figures.coverage, figures.leak) == (1.0, 1.0, 0.0)
    assert figures.overall == 1.0
    assert figures.frames == 5
    for lazy in (np.zeros(GRID, bool), np.ones(GRID, bool)):
        assert combine({"a": [views([lazy] * 5, 2, thing)]}).overall == 0.0


def test_flicker_and_lag_cost_stability() -> None:
    thing = np.zeros(GRID, bool)
    thing[20:40, 20:40] = True
    flicker = [np.roll(thing, 2 * t, axis=1) & (t % 2 == 0) for t in range(5)]
    assert combine({"a": [views(flicker, 2, thing)]}).stability == 0.0
    half = [np.roll(thing, 2 * t, axis=1) for t in range(5)]
    half[2] = half[2] & (np.arange(GRID[1]) < 34)  # the left half
    figures = combine({"a": [views(half, 2, thing)]})
    assert figures.stability == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)


def test_sources_weigh_the_same() -> None:
    thing = np.zeros(GRID, bool)
    thing[20:40, 20:40] = True
    good = views([np.roll(thing, 2 * t, axis=1) for t in range(3)], 2, thing)
    bad = views([np.zeros(GRID, bool)] * 3, 2, thing)
    assert combine({"a": [good], "b": [bad] * 9}).coverage == 0.5


def test_each_clip_has_a_figure_where_something_moves() -> None:
    thing = np.zeros(GRID, bool)
    thing[20:40, 20:40] = True
    good = views([np.roll(thing, 2 * t, axis=1) for t in range(3)], 2, thing)
    empty = views([np.zeros(GRID, bool)] * 3, 2, thing)
    still = views([thing] * 3, 0, thing)
    assert combine({"a": [good, still], "b": [empty]}).per_clip == (1.0, None, 0.0)


def test_measures_an_onnx_file(clips: Path, motion_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apart = [video for video in find_clips(clips) if is_held_out(video)]
    figures = clip_consistency(motion_model, apart, 12)
    assert (figures.clips, figures.frames) == (1, 12)
    # Its foreground is the residual motion itself.
    assert figures.coverage > 0.8
    assert figures.leak < 0.1
    assert main(["--check", "--clips", str(clips), "--model", str(motion_model), "--frames", "12"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"] == pytest.approx(figures.overall)
    with pytest.raises(SourceError, match="two readable frames"):
        clip_consistency(motion_model, apart, 1)
