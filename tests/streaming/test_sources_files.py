"""Videos and images: every frame in order, damage counted, and one line for whatever cannot be read."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import SourceError
from streaming.sources import open_source
from streaming.sources.decoder import to_bgr8
from streaming.sources.images import natural_key

FRAMES = 20


def gray_level(index: int) -> int:
    return 10 + index * 11


def write_video(
    path: Path, codec: str = "MJPG", frames: int = FRAMES, size: tuple[int, int] = (48, 64), fps: float = 25.0
) -> Path:
    """A video whose frame i is filled with gray_level(i)."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((*size, 3), gray_level(index), np.uint8))
    writer.release()
    return path


def jpeg_starts(data: bytes) -> list[int]:
    """Where the frames of a Motion-JPEG file begin."""
    starts, at = [], -1
    while (at := data.find(b"\xff\xd8\xff", at + 1)) >= 0:
        starts.append(at)
    assert len(starts) == FRAMES
    return starts


def erase_jpegs(path: Path, which: range) -> None:
    """Overwrite whole frames of a Motion-JPEG file with zeros; its index stays intact."""
    data = bytearray(path.read_bytes())
    starts = jpeg_starts(bytes(data))
    for index in which:
        # Up to the header of the next frame's chunk; 400 bytes are the tables without which nothing decodes.
        end = starts[index + 1] - 8 if index + 1 < FRAMES else starts[index] + 400
        data[starts[index] : end] = bytes(end - starts[index])
    path.write_bytes(data)


def assert_refused(uri: str, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 3
    for word in words:
        assert word in message


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v"), ("avi", "mp4v")])
def test_a_video_is_read_frame_by_frame_with_its_own_time(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", codec)
    with open_source(str(path)) as source:
        assert (source.name, source.live, source.size, source.frame_count) == (
            "clip",
            False,
            (48, 64),
            FRAMES,
        )
        assert source.fps == pytest.approx(25.0)
        frames = list(source)
        assert source.read() is None
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.pts_ns for frame in frames] == pytest.approx([i * 40_000_000 for i in range(FRAMES)], abs=1e6)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.mean() == pytest.approx(gray_level(frame.index), abs=6)
    assert source.dropped == {}


def test_odd_sizes_and_unknown_lengths_are_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "odd.mjpeg"
    pictures = [np.full((51, 67, 3), gray_level(index), np.uint8) for index in range(FRAMES)]
    path.write_bytes(b"".join(cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures))
    with open_source(str(path)) as source:
        assert source.size == (51, 67)
        assert source.frame_count is None
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    stamps = [frame.pts_ns for frame in frames if frame.pts_ns is not None]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == FRAMES
    assert source.dropped == {}


@pytest.mark.parametrize("damaged", [range(7, 8), range(5, 15)])
def test_damaged_frames_are_counted_and_skipped(tmp_path: Path, damaged: range) -> None:
    path = write_video(tmp_path / "clip.avi")
    erase_jpegs(path, damaged)
    with open_source(str(path)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [i for i in range(FRAMES) if i not in damaged]
    for frame in frames:
        assert frame.image.mean() == pytest.approx(gray_level(frame.index), abs=6)
    assert source.dropped == {"corrupt": len(damaged)}


def test_a_video_cut_off_reports_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "clip.avi")
    data = path.read_bytes()
    path.write_bytes(data[: jpeg_starts(data)[12]])
    with open_source(str(path)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert source.dropped == {"missing": FRAMES - 12}
    assert "ends after frame 12 of 20" in caplog.text


def test_loop_goes_on_with_rising_index_and_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", "mp4v")
    with open_source(str(path), loop=True) as source:
        assert source.frame_count is None
        frames = [source.read() for _ in range(2 * FRAMES + 3)]
    assert [frame.index for frame in frames if frame] == list(range(2 * FRAMES + 3))
    stamps = [frame.pts_ns for frame in frames if frame and frame.pts_ns is not None]
    assert np.allclose(np.diff(stamps), 40e6, atol=1e6)
    again = frames[FRAMES]
    assert again is not None
    assert again.image.mean() == pytest.approx(gray_level(0), abs=6)


def test_files_that_are_no_video_are_refused(tmp_path: Path) -> None:
    assert_refused(str(tmp_path / "nothing.mp4"), "nothing.mp4", "does not exist")
    (tmp_path / "empty.mp4").touch()
    assert_refused(str(tmp_path / "empty.mp4"), "0 bytes")
    (tmp_path / "text.mp4").write_text("not a film " * 100)
    assert_refused(str(tmp_path / "text.mp4"), "text.mp4", "1100 bytes")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert_refused(str(tmp_path / "pipe.mp4"), "not a regular file")


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", "mp4v")
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])
    assert_refused(str(path), "cut off")


def test_a_video_in_which_nothing_decodes_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi")
    erase_jpegs(path, range(FRAMES))
    assert_refused(str(path), "no frame", "20")


def test_decoders_do_not_write_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "clip.avi")
    erase_jpegs(path, range(3, 6))
    with open_source(str(path)) as source:
        assert len(list(source)) == FRAMES - 3
    (tmp_path / "text.mp4").write_text("not a film " * 100)
    assert_refused(str(tmp_path / "text.mp4"))
    assert capfd.readouterr() == ("", "")


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((20, 30, 3), gray_level(index), np.uint8))


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    write_images(tmp_path / "run", ["f1.png", "f2.jpg", "f10.bmp", "f11.webp", "f100.tiff"])
    (tmp_path / "run" / "notes.txt").write_text("x")
    with open_source(str(tmp_path / "run")) as source:
        assert (source.name, source.size, source.frame_count, source.fps) == ("run", (20, 30), 5, None)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    levels = [float(frame.image.mean()) for frame in frames]
    assert levels == pytest.approx([gray_level(i) for i in range(5)], abs=2)


def test_a_glob_selects_images(tmp_path: Path) -> None:
    write_images(tmp_path / "run", ["a1.png", "b1.png", "a2.png"])
    with open_source(str(tmp_path / "run" / "a*.png")) as source:
        assert source.name == "run"
        assert [round(float(frame.image.mean())) for frame in source] == [gray_level(0), gray_level(2)]


def test_an_unreadable_image_leaves_a_gap(tmp_path: Path) -> None:
    write_images(tmp_path / "run", ["0.png", "1.png", "2.png", "3.png"])
    (tmp_path / "run" / "0.png").write_bytes(b"")
    (tmp_path / "run" / "2.png").write_bytes(b"\x89PNG broken")
    with open_source(str(tmp_path / "run")) as source:
        assert [frame.index for frame in source] == [1, 3]
    assert source.dropped == {"corrupt": 2}


def test_images_loop_past_unreadable_ones(tmp_path: Path) -> None:
    write_images(tmp_path / "run", ["0.png", "1.png", "2.png"])
    (tmp_path / "run" / "2.png").write_bytes(b"")
    with open_source(str(tmp_path / "run"), loop=True) as source:
        taken = [source.read() for _ in range(5)]
    assert [frame.index for frame in taken if frame] == [0, 1, 3, 4, 6]


def test_an_image_of_another_size_is_delivered_as_it_is(tmp_path: Path) -> None:
    write_images(tmp_path / "run", ["0.png"])
    assert cv2.imwrite(str(tmp_path / "run" / "1.png"), np.zeros((11, 13), np.uint8))
    with open_source(str(tmp_path / "run")) as source:
        assert [frame.image.shape for frame in source] == [(20, 30, 3), (11, 13, 3)]


@pytest.mark.parametrize(
    "picture",
    [
        np.full((8, 9), 100, np.uint8),
        np.full((8, 9, 4), (100, 100, 100, 0), np.uint8),
        np.full((8, 9), 100 * 257, np.uint16),
        np.full((8, 9, 3), 100 * 257, np.uint16),
    ],
    ids=["gray", "alpha", "gray16", "colour16"],
)
def test_gray_alpha_and_16_bit_images_become_bgr(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "one.png"
    assert cv2.imwrite(str(path), picture)
    with open_source(str(path)) as source:
        frame = source.read()
        assert source.read() is None
    assert frame is not None
    assert frame.image.dtype == np.uint8
    assert np.array_equal(frame.image, np.full((8, 9, 3), 100, np.uint8))


def test_conversion_to_bgr_covers_what_cameras_deliver() -> None:
    assert np.array_equal(to_bgr8(np.full((2, 2, 1), 7, np.uint8)), np.full((2, 2, 3), 7))
    assert np.array_equal(to_bgr8(np.full((2, 2, 4), 7, np.uint8)), np.full((2, 2, 3), 7))
    assert np.array_equal(to_bgr8(np.array([[0.0, 0.5], [2.0, np.nan]], np.float32))[..., 0], [[0, 128], [255, 0]])
    for wrong in (np.zeros((2, 2), np.int32), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(SourceError, match="not supported"):
            to_bgr8(wrong)


def test_image_sources_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert_refused(str(tmp_path), str(tmp_path), "1 files", ".webp")
    assert_refused(str(tmp_path / "*.png"), "*.png", ".jpg")
    assert_refused(str(tmp_path / "gone.png"), "does not exist")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert_refused(str(tmp_path), "none of the 1 images")


def test_natural_order_is_total_over_mixed_names() -> None:
    names = ["10", "9", "a10", "a9", "a", "b1c2", "b1c10", ""]
    assert sorted(names, key=natural_key) == ["", "9", "10", "a", "a9", "a10", "b1c2", "b1c10"]
