"""The built-in scene: the same every time, its truth exact, and all that makes segmentation hard in it."""

import time
from functools import cache

import cv2
import numpy as np
import pytest

from engine.errors import UsageError
from streaming.sources import open_source
from streaming.sources.demo import DemoOptions, is_demo, parse_demo
from streaming.sources.demo_motion import AWAY_S, PERIOD_S, STILL_S, CameraPath, Path
from streaming.sources.demo_scene import MARGIN_X, MARGIN_Y, DemoScene

SIZE = (120, 214)
FPS = 10.0
ROUND = int(PERIOD_S * FPS)
SEEDS = [0, 1, 2, 5]


@cache
def scene(seed: int, static_camera: bool = False) -> DemoScene:
    return DemoScene(seed, SIZE, FPS, static_camera=static_camera)


@cache
def truths(seed: int) -> np.ndarray:
    """uint16 [T, H, W], one full round of the motion."""
    return np.stack([scene(seed).render(index)[1] for index in range(ROUND)])


def test_options_are_read_from_the_uri() -> None:
    assert parse_demo("demo") == DemoOptions()
    assert parse_demo("demo://?seed=3&frames=30&size=96x128&fps=12.5&static_camera=1&live=1&objects=2") == DemoOptions(
        3, 30, (96, 128), 12.5, True, True, 2
    )
    assert [is_demo(uri) for uri in ("demo", "demo:", "demo://", "demo?seed=1", "demo.mp4", "demos")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sed=3", "did you mean 'seed'"),
        ("static=1", "did you mean 'static_camera'"),
        ("zzz=1", "known: seed frames size"),
        ("seed=-1", "whole number"),
        ("size=480", "480x854"),
        ("size=4x4", "from 64x64"),
        ("fps=nan", "frames per second"),
        ("live=yes", "0 or 1"),
        ("objects=", "whole number"),
    ],
)
def test_wrong_options_are_usage_errors(query: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(f"demo://?{query}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_source_delivers_frames_with_truth_and_ends() -> None:
    with open_source("demo://?frames=3&size=120x214&fps=25&seed=1") as source:
        assert (source.name, source.live, source.size) == ("demo", False, (120, 214))
        assert (source.frame_count, source.fps) == (3, 25.0)
        frames = list(source)
    assert [(frame.index, frame.pts_ns) for frame in frames] == [(0, 0), (1, 40_000_000), (2, 80_000_000)]
    for frame in frames:
        assert frame.image.shape == (120, 214, 3)
        assert frame.image.dtype == np.uint8
        assert frame.truth is not None
        assert frame.truth.shape == (120, 214)
        assert frame.truth.dtype == np.uint16


def test_every_frame_depends_on_seed_and_index_only() -> None:
    first, second = DemoScene(3, SIZE, FPS), DemoScene(3, SIZE, FPS)
    forward = {index: first.render(index) for index in (0, 7, 31)}
    for index in (31, 0, 7):
        image, truth = second.render(index)
        assert np.array_equal(image, forward[index][0])
        assert np.array_equal(truth, forward[index][1])
    other_image, other_truth = DemoScene(4, SIZE, FPS).render(0)
    assert not np.array_equal(other_image, forward[0][0])
    assert not np.array_equal(other_truth, forward[0][1])


def test_looping_repeats_the_pictures_and_goes_on_counting() -> None:
    with open_source("demo://?frames=2&size=64x64&seed=2", loop=True) as source:
        frames = [source.read() for _ in range(4)]
    kept = [frame for frame in frames if frame is not None]
    assert [frame.index for frame in kept] == [0, 1, 2, 3]
    assert np.array_equal(kept[0].image, kept[2].image)


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_change_where_the_truth_moves_and_nowhere_else(seed: int) -> None:
    still = scene(seed, static_camera=True)
    for index in (5, 40, 75):
        (before, labels_before), (after, labels_after) = still.render(index), still.render(index + 1)
        change = cv2.absdiff(before, after).max(2)
        moved = labels_before != labels_after
        # Shadows reach a little beyond the objects; far from all of them only noise is left.
        touched = cv2.dilate(((labels_before + labels_after) > 0).astype(np.uint8), np.ones((61, 61), np.uint8)) > 0
        assert moved.sum() > 50
        assert np.median(change[moved]) > 20
        assert (~touched).sum() > 500
        assert np.percentile(change[~touched], 99) < 20


@pytest.mark.parametrize("seed", SEEDS)
def test_an_object_leaves_and_returns_under_its_id(seed: int) -> None:
    present = np.array([[(labels == ident).any() for ident in range(1, 7)] for labels in truths(seed)])
    comebacks = []
    for ident in range(6):
        runs = np.split(present[:, ident], np.flatnonzero(np.diff(present[:, ident])) + 1)
        inner = [len(run) for run in runs[1:-1] if not run[0]]
        comebacks.append(max(inner, default=0))
    # Away for at least half a second, between two appearances.
    assert sum(gap >= FPS / 2 for gap in comebacks) >= 2
    assert present.sum(1).min() >= 2
    assert set(np.unique(truths(seed))) == set(range(7))


@pytest.mark.parametrize("seed", SEEDS)
def test_objects_hide_each_other_and_poles_hide_objects(seed: int) -> None:
    hidden_by_object = hidden_by_pole = 0
    for index in range(0, ROUND, 4):
        labels = truths(seed)[index]
        for ident in range(1, 7):
            whole = scene(seed).silhouette(index, ident)
            assert not ((labels == ident) & ~whole).any()
            if whole.sum() > 100:
                hidden_by_object += (whole & (labels != ident) & (labels != 0)).sum() > 0.2 * whole.sum()
                hidden_by_pole += (whole & (labels == 0)).sum() > 0.05 * whole.sum()
    assert hidden_by_object >= 5
    assert hidden_by_pole >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_object_stands_exactly_still(seed: int) -> None:
    still = scene(seed, static_camera=True)
    pause = range(int(STILL_S[0][0] * FPS) + 1, int(STILL_S[0][1] * FPS))
    outlines = [still.silhouette(index, 3) for index in pause]
    assert outlines[0].any()
    assert all(np.array_equal(outlines[0], outline) for outline in outlines)
    assert not np.array_equal(outlines[0], still.silhouette(0, 3))


def test_paths_are_closed_and_crossers_are_out_of_reach_while_away() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        path = Path(rng, "crosser", reach=0.9, lane=0.3, outside=0.6, sway=0.03)
        start, end = path.at(0.0), path.at(PERIOD_S - 1e-9)
        assert (end.x, end.y) == pytest.approx((start.x, start.y), abs=1e-5)
        for begin_s, end_s in AWAY_S:
            for time_s in np.linspace(begin_s, end_s, 5):
                assert abs(path.at(float(time_s)).x) == pytest.approx(1.5)


def test_the_camera_never_looks_beyond_the_painted_world() -> None:
    height, width = SIZE
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    limit = np.array([width / height / 2 + MARGIN_X, 0.5 + MARGIN_Y])
    rng = np.random.default_rng(0)
    for _ in range(30):
        camera = CameraPath(rng.uniform(0, 2 * np.pi, 4), still=False)
        for time_s in rng.uniform(0, 1000, 60):
            matrix = camera.matrix(float(time_s), SIZE)
            seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            assert (np.abs(seen) <= limit).all()


def test_the_camera_moves_unless_it_is_static() -> None:
    moving, standing = CameraPath(np.zeros(4), still=False), CameraPath(np.zeros(4), still=True)
    assert not np.allclose(moving.matrix(0.0, SIZE), moving.matrix(1.0, SIZE), atol=1.0)
    assert np.array_equal(standing.matrix(0.0, SIZE), standing.matrix(1.0, SIZE))


def test_live_frames_come_in_real_time_and_late_ones_are_counted() -> None:
    with open_source("demo://?size=64x64&fps=100&live=1&frames=60&objects=1") as source:
        start_s = time.monotonic()
        frames = list(source)
        elapsed_s = time.monotonic() - start_s
    assert source.live
    assert elapsed_s >= 0.55
    assert len(frames) + source.dropped.get("late", 0) == 60
    assert frames[0].pts_ns is None


def test_a_reader_that_sleeps_misses_live_frames() -> None:
    with open_source("demo://?size=64x64&fps=1000&live=1&frames=0&objects=0") as source:
        first = source.read()
        threading_pause_s = 0.05
        time.sleep(threading_pause_s)
        second = source.read()
    assert first is not None
    assert second is not None
    assert second.index >= 1000 * threading_pause_s
    assert source.dropped["late"] == second.index - first.index - 1
