"""Recordings as a source: ours, rosbag2's, ROS 1's, and broken ones."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the recording extra")

from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter

from engine.errors import SourceError, UsageError
from engine.run import main
from streaming.capture import CaptureThread
from streaming.mailbox import Mailbox
from streaming.ros.cdr import Serialiser
from streaming.ros.definitions import IMAGE, ros1_definition, ros2_types
from streaming.ros.messages import CompressedImage, Header, Image
from streaming.sinks.mcap import McapSink
from streaming.sources import default_name, open_source
from tests.streaming.test_mcap_sink import START_NS, frame, scene

H, W = 20, 30
TIMES_NS = [START_NS + offset_ms * 1_000_000 for offset_ms in (0, 40, 70, 200, 240)]


def pixels(index: int) -> np.ndarray:
    return np.full((H, W, 3), (index, 100, 200), np.uint8)


def raw(index: int, stamp_ns: int, encoding: str = "bgr8") -> Image:
    data = pixels(index) if encoding == "bgr8" else np.ascontiguousarray(pixels(index)[..., ::-1])
    return Image(Header(stamp_ns, "camera"), H, W, encoding, W * 3, data.data.cast("B"))


def compressed(index: int, stamp_ns: int, suffix: str = ".png") -> CompressedImage:
    _, data = cv2.imencode(suffix, pixels(index))
    return CompressedImage(Header(stamp_ns, "camera"), suffix[1:], data.data.cast("B"))


def write_mcap(path: Path, topics: dict[str, Sequence[Any]], generation: int = 2, **options: Any) -> Path:
    """An MCAP file by the library's own writer: messages of each topic at `TIMES_NS`; bytes are written as they are."""
    serialiser = Serialiser(generation)
    with path.open("wb") as stream:
        writer = Writer(stream, **options)
        writer.start()
        for topic, contents in topics.items():
            kind = "CompressedImage" if isinstance(contents[0], CompressedImage) else "Image"
            if generation == 1:
                schema = writer.register_schema(f"sensor_msgs/{kind}", "ros1msg", ros1_definition(IMAGE)[0].encode())
                channel = writer.register_channel(topic, "ros1", schema)
            else:
                definition = ros2_types().generate_msgdef(f"sensor_msgs/msg/{kind}", ros_version=2)[0]
                schema = writer.register_schema(f"sensor_msgs/msg/{kind}", "ros2msg", definition.encode())
                channel = writer.register_channel(topic, "cdr", schema)
            for log_ns, content in zip(TIMES_NS, contents, strict=False):
                data = content if isinstance(content, bytes) else serialiser.encode(content)
                writer.add_message(channel, log_ns, data, log_ns)
        writer.finish()
    return path


def test_our_own_recording_comes_back_with_its_stamps(tmp_path: Path) -> None:
    sink = McapSink(tmp_path / "run.mcap")
    for index in (0, 1, 3):
        sink.step(frame(index), [scene(index)])
    sink.close()
    with open_source(str(tmp_path / "run.mcap")) as source:
        frames = list(source)
        assert (source.name, source.frame_count, source.live) == ("run", 3, False)
    assert [one.t_capture_ns for one in frames] == [START_NS, START_NS + 40_000_000, START_NS + 120_000_000]
    assert [one.pts_ns for one in frames] == [0, 40_000_000, 120_000_000]
    assert all(
        np.abs(one.image.astype(int) - frame(index).image).max() <= 3
        for one, index in zip(frames, (0, 1, 3), strict=True)
    )


@pytest.mark.parametrize("storage", [{}, {"use_chunking": False}, {"chunk_size": 1000}])
@pytest.mark.parametrize("generation", [1, 2])
def test_foreign_recordings_of_raw_images(tmp_path: Path, generation: int, storage: dict[str, Any]) -> None:
    images = [raw(index, t_ns - 5, "rgb8" if index % 2 else "bgr8") for index, t_ns in enumerate(TIMES_NS)]
    path = write_mcap(tmp_path / "a.mcap", {"/camera/image_raw": images}, generation, **storage)
    with open_source(str(path)) as source:
        assert source.fps == pytest.approx(4 / 0.24)
        frames = list(source)
    assert [one.index for one in frames] == list(range(5))
    assert [one.t_capture_ns for one in frames] == [t_ns - 5 for t_ns in TIMES_NS]
    assert [one.pts_ns for one in frames] == [t_ns - START_NS for t_ns in TIMES_NS]
    assert all(np.array_equal(one.image, pixels(one.index)) for one in frames)
    assert all(one.image.flags.writeable for one in frames)


def test_a_rosbag2_folder_of_several_files(tmp_path: Path) -> None:
    store, serialiser = ros2_types(), Serialiser(2)
    for part in range(2):
        with BagWriter(tmp_path / f"part{part}", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
            camera = bag.add_connection("/camera/image/compressed", "sensor_msgs/msg/CompressedImage", typestore=store)
            for index in range(3):
                number = 3 * part + index
                bag.write(camera, START_NS + number * 10**7, serialiser.encode(compressed(number, START_NS + number)))
    folder = tmp_path / "bag"
    folder.mkdir()
    for part in range(2):
        (file,) = (tmp_path / f"part{part}").glob("*.mcap")
        file.rename(folder / f"bag_{part}.mcap")
    with open_source(f"{folder}?topic=/camera/image/compressed") as source:
        assert source.name == "bag"
        assert [(one.index, one.image[0, 0, 0], one.t_capture_ns - START_NS) for one in source] == [
            (number, number, number) for number in range(6)
        ]


def test_among_several_topics_one_must_be_chosen(tmp_path: Path) -> None:
    left, right = ([compressed(base + i, t) for i, t in enumerate(TIMES_NS)] for base in (0, 50))
    depth = [Image(Header(t, "camera"), H, W, "16UC1", 2 * W, memoryview(bytes(2 * W * H))) for t in TIMES_NS]
    path = write_mcap(tmp_path / "a.mcap", {"/left": left, "/right": right, "/depth": depth})
    with pytest.raises(SourceError, match=r"images of 2 topics, one is needed: add \?topic= and one of /left /right$"):
        open_source(str(path))
    with open_source(f"{path}?topic=/right") as source:
        assert [one.image[0, 0, 0] for one in source] == [50, 51, 52, 53, 54]
    with pytest.raises(SourceError, match=r"no images under topic '/up'; there are: /depth /left /right"):
        open_source(f"{path}?topic=up")
    with pytest.raises(SourceError, match=r"topic /depth: image encoding '16UC1' is not supported"):
        open_source(f"{path}?topic=/depth")
    with pytest.raises(UsageError, match="one parameter is known, topic"):
        open_source(f"{path}?speed=2")
    assert default_name(f"{path}?topic=/right") == "a"


def test_without_a_stamp_the_log_time_counts_and_what_is_no_picture_is_counted(tmp_path: Path) -> None:
    torn = Serialiser(2).encode(compressed(2, 1))[:-200]
    images = [compressed(0, 0), compressed(1, 0), torn, compressed(3, 0)]
    with open_source(str(write_mcap(tmp_path / "a.mcap", {"/camera": images}))) as source:
        frames = list(source)
        assert source.dropped == {"corrupt": 1}
    assert [(one.index, one.t_capture_ns) for one in frames] == [(i, TIMES_NS[i]) for i in (0, 1, 3)]


def test_looped_time_goes_on(tmp_path: Path) -> None:
    images = [raw(index, t_ns) for index, t_ns in enumerate(TIMES_NS)]
    with open_source(str(write_mcap(tmp_path / "a.mcap", {"/camera": images})), loop=True) as source:
        frames = [source.read() for _ in range(12)]
        assert source.frame_count is None
    assert [one.index for one in frames] == list(range(12))
    assert [one.image[0, 0, 0] for one in frames] == [*range(5), *range(5), 0, 1]
    for times in ([one.pts_ns for one in frames], [one.t_capture_ns for one in frames]):
        assert times == sorted(set(times))


def test_played_at_its_own_pace_each_frame_waits_for_its_time(tmp_path: Path) -> None:
    images = [raw(index, t_ns) for index, t_ns in enumerate(TIMES_NS)]
    path = write_mcap(tmp_path / "a.mcap", {"/camera": images})
    arrived_s: list[float] = []
    mailbox = Mailbox("every", 8, live=False, on_change=lambda: arrived_s.append(time.monotonic()))
    thread = CaptureThread(open_source(str(path)), mailbox, paced=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert thread.decoded == 5
    assert thread._zero_s is not None  # when the recording began, had it begun with this thread
    due_s = [thread._zero_s + (t_ns - START_NS) / 1e9 for t_ns in TIMES_NS]
    # Never early; how late depends on the machine.
    assert all(at_s >= due - 0.001 for at_s, due in zip(arrived_s[:5], due_s, strict=True))


def test_a_silence_in_the_recording_is_a_gap_however_fast_it_is_played(tmp_path: Path) -> None:
    sink = McapSink(tmp_path / "a.mcap")
    for index in (0, 1, 2, 3, 103, 104, 105):
        sink.step(frame(index), [])  # 40 ms each
    sink.close()
    thread = CaptureThread(open_source(str(tmp_path / "a.mcap")), Mailbox("every", 8, live=False))
    thread.start()
    thread.join(60)
    assert list(thread.gaps) == [4]


def test_a_long_silence_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    sink = McapSink(path)
    for index in (0, 100_000):
        sink.step(frame(index), [])
    sink.close()
    thread = CaptureThread(open_source(str(path)), Mailbox("every", 8, live=False), paced=True)
    thread.start()
    assert thread.stop(60)
    assert threading.current_thread() is not thread


def break_middle(data: bytearray) -> bytes:
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    return bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "is not an MCAP file"),
        (lambda data: b"RIFF" + data[4:], "is not an MCAP file"),
        (lambda data: data[:60], "no images that can be played"),
        (break_middle, "is damaged"),
    ],
    ids=["empty", "other", "only-the-head", "chunk"],
)
def test_broken_recordings_end_in_one_line_and_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, said
) -> None:
    rng = np.random.default_rng(0)
    noise = [Image(Header(t, "c"), H, W, "bgr8", 3 * W, memoryview(rng.bytes(3 * W * H))) for t in TIMES_NS]
    path = write_mcap(tmp_path / "a.mcap", {"/camera": noise}, chunk_size=2500)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    assert main(["--source", str(path), "--no-publish"]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert said in line


def test_without_images_it_says_what_there_is(tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channel = writer.register_channel(
            "/chatter", "cdr", writer.register_schema("std_msgs/msg/String", "ros2msg", b"")
        )
        writer.add_message(channel, 1, b"\0\1\0\0\1\0\0\0\0", 1)
        writer.finish()
    with pytest.raises(SourceError, match=r"CompressedImage is needed, there are: /chatter \(std_msgs/msg/String\)"):
        open_source(str(tmp_path / "a.mcap"))
    with pytest.raises(SourceError, match="No such file"):
        open_source(str(tmp_path / "b.mcap"))


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.8, 0.99])
def test_a_recording_that_was_cut_off_is_played_as_far_as_it_goes(
    tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    noise = [Image(Header(t, "c"), H, W, "bgr8", 3 * W, memoryview(rng.bytes(3 * W * H))) for t in TIMES_NS]
    path = write_mcap(tmp_path / "a.mcap", {"/camera": noise}, chunk_size=1000)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with open_source(str(path)) as source:
        played = list(source)
    assert 1 <= len(played) <= 5
    assert all(np.array_equal(one.image.ravel(), np.frombuffer(noise[one.index].data, np.uint8)) for one in played)
    assert len([line for line in caplog.messages if "cut off" in line]) == 1


@pytest.mark.parametrize("storage", [{"chunk_size": 1000}, {"chunk_size": 1000, "compression": CompressionType.LZ4}])
def test_whatever_is_broken_in_a_file_it_plays_or_is_a_source_error(tmp_path: Path, storage: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    images = [raw(index, t_ns) for index, t_ns in enumerate(TIMES_NS)]
    whole = write_mcap(tmp_path / "whole.mcap", {"/camera": images}, **storage).read_bytes()
    path = tmp_path / "a.mcap"
    played, said = 0, []
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            with open_source(str(path)) as source:
                for one in source:
                    assert one.image.ndim == 3
            played += 1
        except SourceError as error:
            said.append(str(error))
    assert played > 10
    assert len(said) > 10
    assert all("\n" not in line for line in said)
