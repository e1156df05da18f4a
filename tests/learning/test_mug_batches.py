"""Clips are decoded once, bursts lie in their segments, and a step's frames are what the losses need."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import StoreError, UsageError  # noqa: E402
from learning.mug import batches  # noqa: E402
from learning.mug.batches import VideoBatches, choose_frames  # noqa: E402
from learning.mug.bursts import BURST, SEGMENTS, SIZE, Bursts, build, burst_starts, choose_clips, map_of  # noqa: E402
from learning.mug.stills import build_stills, find_stills, open_stills, read_still  # noqa: E402
from learning.networks.mug import SEEN  # noqa: E402
from tests.learning.mug_parts import drawn_bursts  # noqa: E402


@pytest.mark.parametrize("frames", [13, 20, 47, 48, 61, 200])
def test_bursts_lie_in_order_within_the_clip(frames: int) -> None:
    for seed in range(20):
        starts = burst_starts(frames, np.random.default_rng(seed))
        assert len(starts) == SEGMENTS
        assert (np.diff(starts) > 0).all()
        assert starts[0] >= 0
        assert starts[-1] + BURST <= frames
        if frames >= 48:
            edges = np.arange(SEGMENTS + 1) * frames // SEGMENTS
            assert (starts >= edges[:-1]).all()
            assert (starts + BURST <= edges[1:]).all()
    with pytest.raises(ValueError, match="12 frames"):
        burst_starts(12, np.random.default_rng(0))


@pytest.mark.parametrize("frames", [13, 16, 20, 30, 48, 200])
def test_a_step_sees_ordered_neighbours_and_a_distant_frame(frames: int) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        starts = burst_starts(frames, rng)
        offsets, tracked, query, other = choose_frames(starts, rng)
        assert (np.diff(tracked) > 0).all()
        assert 0 <= tracked[0] < tracked[-1] < BURST
        assert offsets[query] == tracked[0]
        assert ((offsets >= 0) & (offsets < BURST)).all()
        numbers = starts + offsets
        assert abs(numbers[other] - numbers[query]) >= batches.DISTANT_FRAMES


def test_clips_are_decoded_once(picture_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = build(picture_folder / "clips", tmp_path / "bursts", 10, 0, said.append)
    assert said
    assert made.frames.shape == (2, SEGMENTS, BURST, *SIZE, 3)
    assert sorted(made.held_out) == [False, True]
    assert set(made.sources) == {"general"}
    video = made.names.index("pan")
    capture = cv2.VideoCapture(str(picture_folder / "clips" / "general" / "pan.mp4"))
    film = [capture.read()[1] for _ in range(60)]
    capture.release()
    small = cv2.resize(film[made.starts[video, 3] + 2], SIZE[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(made.frames[video, 3, 2], small[..., ::-1])
    assert np.array_equal(made.maps[video, 3, 2], map_of(made.frames[video, 3, 2]))
    assert not made.maps[1 - video].any()  # nothing stands out of white
    said.clear()
    again = build(picture_folder / "clips", tmp_path / "bursts", 10, 1, said.append)
    assert not said
    assert np.array_equal(again.starts, made.starts)


def test_what_cannot_be_decoded_is_said_in_one_line(picture_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UsageError, match="none of 1 videos has 13 readable frames"):
        build(tmp_path / "broken", tmp_path / "out", 5, 0, lambda _: None)
    with pytest.raises(StoreError, match="no bursts of clips"):
        Bursts.open(tmp_path)
    with pytest.raises(UsageError, match="--per-source 0"):
        choose_clips(picture_folder / "clips", 0)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--cache"):
        build(picture_folder / "clips", tmp_path / "file", 1, 0, lambda _: None)


def test_a_batch_moves_images_and_maps_together() -> None:
    drawn = VideoBatches(drawn_bursts(), 3, seed=1)
    for _ in range(5):
        batch = drawn.draw()
        assert batch.images.shape == (3, SEGMENTS, 3, *SEEN)
        assert batch.initial.shape == (3, SEGMENTS, 1, SEEN[0] // 4, SEEN[1] // 4)
        assert batch.later.shape == (3, 2, 3, *SEEN)
        assert (batch.query != batch.other).all()
        # The square is bright where its map is one, whatever was mirrored or recoloured.
        brightness = torch.nn.functional.avg_pool2d(batch.images.flatten(0, 1).mean(dim=1, keepdim=True), 4)
        # Edges of squares fall between the cells of the smaller grid.
        agree = (brightness > -0.5).float() == batch.initial.flatten(0, 1)
        assert float(agree.float().mean()) > 0.97
        assert torch.equal(batch.of_query(batch.images)[1], batch.images[1, batch.query[1]])
        assert torch.equal(batch.of_other(batch.images)[2], batch.images[2, batch.other[2]])


def test_sources_are_drawn_alike_and_seeds_repeat() -> None:
    bursts = drawn_bursts(training=6)
    one = VideoBatches(bursts, 2, seed=5)
    firsts = [one.rng.choice(one._chosen, p=one._weights) for _ in range(400)]
    # One clip of six is the only one of its source: half of all draws.
    assert 150 < sum(video == 0 for video in firsts) < 250
    a, b = (VideoBatches(bursts, 2, seed=7).draw() for _ in range(2))
    assert torch.equal(a.images, b.images)
    with pytest.raises(StoreError, match="2 held-out clips, a batch needs 3"):
        VideoBatches(bursts, 3, seed=0, held_out=True)


def test_photographs_are_decoded_once_and_masks_beside_them_are_not_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "instances").mkdir()
    (tmp_path / "b").mkdir()
    tall = cv2.resize(rng.integers(0, 255, (12, 8, 3)).astype(np.uint8), (130, 400), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "a" / "images" / "tall.png"), tall)
    cv2.imwrite(str(tmp_path / "a" / "instances" / "tall.png"), np.zeros((400, 130), np.uint8))
    cv2.imwrite(str(tmp_path / "b" / "wide.jpg"), tall.transpose(1, 0, 2))
    (tmp_path / "b" / "broken.jpg").write_bytes(b"no picture")
    folders = [tmp_path / "a", tmp_path / "b"]
    assert [p.name for p in find_stills(folders)] == ["tall.png", "broken.jpg", "wide.jpg"]
    said: list[str] = []
    made = build_stills(folders, tmp_path / "cache", said.append)
    assert said
    assert made.images.shape == (2, *SIZE, 3)
    middle = cv2.resize(tall[150:250], SIZE[::-1], interpolation=cv2.INTER_AREA)  # 130 wide, 100 high
    assert np.array_equal(made.images[0], middle[..., ::-1])
    assert np.array_equal(made.maps[1], map_of(made.images[1]))
    assert read_still(tmp_path / "b" / "broken.jpg") is None
    said.clear()
    assert np.array_equal(build_stills(folders, tmp_path / "cache", said.append).images, made.images)
    assert not said
    with pytest.raises(UsageError, match="no picture"):
        find_stills([tmp_path / "cache"])
    with pytest.raises(StoreError, match="no stills"):
        open_stills(tmp_path)
