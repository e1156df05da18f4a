"""Clips are decoded once, groups are never split, and pairs are what they say."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import StoreError, UsageError
from learning.amd.clips import SIZE, STEP, WINDOW, Clips, Pairs, build, spread_starts
from learning.amd.drawn import drawn_pair
from learning.footage import is_held_out
from tests.learning.amd.scenes import moving_square, write_cache


def _film(path: Path, seed: int, frames: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 96))
    for frame in moving_square(frames, seed, size=(96, 160)):
        writer.write(frame[..., ::-1])
    writer.release()


def test_every_source_gets_its_share_and_the_cache_is_opened_again(tmp_path: Path) -> None:
    names = [f"pan_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    kept_apart = next(name for name in names if is_held_out(Path(f"{name}.mp4")))
    trained = next(name for name in names if not is_held_out(Path(f"{name}.mp4")))
    for number, name in enumerate((f"many/{trained}", f"many/{kept_apart}", f"few/{trained}")):
        _film(tmp_path / "clips" / f"{name}.mp4", number)
    clips = build(tmp_path / "clips", tmp_path / "cache", drawn=2, frames_per_source=16)
    counts = {source: sum(w.count for w in clips.windows if w.source == source) for source in ("many", "few", "drawn")}
    assert counts == {"many": 16, "few": 16, "drawn": 4}
    assert {w.clip for w in clips.of(held_out=True) if w.source != "drawn"} == {kept_apart}
    assert clips.frames.shape == (36, *SIZE, 3)
    again = build(tmp_path / "nowhere", tmp_path / "cache")
    assert again.windows == clips.windows
    # A window's frames are STEP apart: the square moves three pixels of 160 per frame.
    first = clips.frames[clips.windows[0].first].astype(int)
    assert np.abs(first - clips.frames[clips.windows[0].first + 1]).mean() > 0.5


def test_windows_are_spread_without_overlap() -> None:
    length = WINDOW * STEP
    starts = spread_starts(100, 5, length)
    assert (starts[0], starts[-1], len(starts)) == (0, 100 - length, 5)
    assert min(np.diff(starts)) >= length
    assert spread_starts(length, 9, length) == [0]
    assert spread_starts(length - 1, 9, length) == []


def test_pairs_come_from_one_window_and_repeat_with_the_seed(tmp_path: Path) -> None:
    clips = Clips(write_cache(tmp_path / "cache"))
    windows = clips.of(held_out=False)
    drawn = Pairs(clips, windows, seed=3, flip=False).draw(8)
    np.testing.assert_array_equal(drawn, Pairs(clips, windows, seed=3, flip=False).draw(8))
    frames = clips.frames.transpose(0, 3, 1, 2)
    for pair in drawn:
        rows = [next(i for i, frame in enumerate(frames) if (frame == side).all()) for side in pair]
        assert rows[0] != rows[1]
        assert rows[0] // 4 == rows[1] // 4 < 3
    assert Pairs(clips, windows, seed=0, crop=(32, 64)).draw(2).shape == (2, 2, 3, 32, 64)


def test_what_is_no_cache_or_holds_no_clip_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not a cache of clips"):
        build(tmp_path, tmp_path / "cache")
    with pytest.raises(UsageError, match="no video"):
        build(tmp_path / "empty", tmp_path / "other")


def test_drawn_pairs_show_shapes_that_move_against_the_ground() -> None:
    pair = drawn_pair(np.random.default_rng(1))
    assert pair.images.shape == (2, 256, 448, 3)
    assert 0 < pair.foreground.mean() < 0.9
    assert np.abs(pair.images[0].astype(int) - pair.images[1]).mean() > 1


def test_the_flow_of_a_drawn_pair_leads_from_the_later_frame_to_the_earlier_one() -> None:
    for seed in range(3):
        pair = drawn_pair(np.random.default_rng(seed), flat=True)
        earlier, later = (cv2.GaussianBlur(image, (0, 0), 2).astype(np.float32) for image in pair.images)
        x, y = np.meshgrid(np.arange(448, dtype=np.float32), np.arange(256, dtype=np.float32))
        rebuilt = cv2.remap(earlier, x + pair.flow[..., 0], y + pair.flow[..., 1], cv2.INTER_LINEAR)
        inner = cv2.erode(pair.foreground.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert inner.any()
        moved, still = (float(np.abs(later - image)[inner].mean()) for image in (rebuilt, earlier))
        # Noise and exposure differ between the two frames.
        assert moved < 0.6 * still
