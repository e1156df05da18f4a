"""What is taken for a recording, here and behind URLs; what it shows, whole and damaged."""

import struct
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the parquet extra")

from engine.errors import SourceError
from learning.mine.fetch import local_copy
from learning.mine.recordings import find_recordings, identity
from learning.mine.views import open_views
from tests.learning.mine.clips import SIZE, pictures, write_video


def _pictures(folder: Path, frames: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for index, image in enumerate(pictures(frames, seed)):
        cv2.imwrite(str(folder / f"f{index}.png"), image)
    return folder


def _found(*uris: object) -> list[tuple[str, str]]:
    return [(recording.name, recording.kind) for recording in find_recordings([str(uri) for uri in uris])]


def test_a_folder_is_searched_and_copies_are_left_out(tmp_path: Path) -> None:
    _pictures(tmp_path / "day" / "stills", 3)
    _pictures(tmp_path / "one", 1)
    clip = write_video(tmp_path / "day" / "b.mp4", 4, 1)
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "c.mp4").write_bytes(clip.read_bytes()[:-1] + b"\0")
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "metadata.yaml").write_text("x")
    (tmp_path / "bag" / "bag_0.mcap").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    assert _found(tmp_path) == [("a", "video"), ("bag", "bag"), ("c", "video"), ("stills", "pictures")]
    assert _found(clip, tmp_path / "a.mp4") == [("a", "video")]
    with pytest.raises(SourceError, match="nothing to mine among 1 files"):
        find_recordings([str(tmp_path / "one")])
    with pytest.raises(SourceError, match="does not exist"):
        find_recordings([str(tmp_path / "absent.mp4")])


def test_a_recording_behind_a_url_is_fetched_for_as_long_as_it_is_needed(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 4, 1)
    folder = _pictures(tmp_path / "stills", 3)
    remote = fsspec.filesystem("memory")
    remote.pipe_file("/runs/clip.mp4", clip.read_bytes())
    for file in folder.iterdir():
        remote.pipe_file(f"/runs/stills/{file.name}", file.read_bytes())
    try:
        found = find_recordings(["memory://runs"])
        assert [(one.name, one.local) for one in found] == [("clip", False), ("stills", False)]
        for one, here in zip(found, (clip, folder), strict=True):
            with local_copy(one) as path:
                assert identity(str(path)) == identity(str(here))
            assert not path.exists()
        remote.rm("/runs/clip.mp4")
        with pytest.raises(SourceError, match="cannot be fetched"), local_copy(found[0]):
            pass
    finally:
        remote.rm("/runs", recursive=True)


def test_the_identity_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    one, other = _pictures(tmp_path / "one", 3), _pictures(tmp_path / "other", 3)
    assert identity(str(one)) == identity(str(other))
    (other / "f1.png").rename(other / "f7.png")
    assert identity(str(one)) != identity(str(other))


def test_times_are_of_the_recording_and_a_damaged_frame_leaves_a_gap(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "stills", 12)
    (folder / "f2.png").write_bytes(b"")
    (folder / "f10.png").write_bytes(b"no picture")
    (view,) = open_views(find_recordings([str(folder)])[0], folder)
    frames = list(view.frames())
    assert [frame.index for frame in frames] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 11]
    assert dict(view.lost) == {"corrupt": 2}
    assert frames[-1].t_capture_ns == round(11e9 / 30)
    clip = write_video(tmp_path / "clip.mp4", 5, 0)
    (view,) = open_views(find_recordings([str(clip)])[0], clip)
    expected = [(i, i * 40_000_000, i * 40_000_000) for i in range(5)]
    assert [(f.index, f.t_capture_ns, f.pts_ns) for f in view.frames()] == expected


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"text" * 100)
    with pytest.raises(SourceError, match=r"400 bytes\) cannot be opened as a video"):
        open_views(find_recordings([str(clip)])[0], clip)


def _write_mcap(path: Path, frames: int) -> Path:
    writer_module = pytest.importorskip("mcap.writer", reason="needs the recording extra")
    typesys = pytest.importorskip("rosbags.typesys", reason="needs the recording extra")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    kinds = store.types
    with path.open("wb") as stream:
        writer = writer_module.Writer(stream, chunk_size=20_000)
        writer.start()
        channels = {}
        for topic, kind in (("/left", "CompressedImage"), ("/right", "Image"), ("/depth", "Image")):
            name = f"sensor_msgs/msg/{kind}"
            text = store.generate_msgdef(name, ros_version=2)[0].encode()
            channels[topic] = writer.register_channel(topic, "cdr", writer.register_schema(name, "ros2msg", text))
        for index, image in enumerate(pictures(frames, 0)):
            log_ns = 10**18 + index * 50_000_000
            stamp = kinds["builtin_interfaces/msg/Time"](10**9, index * 50_000_000)
            header = kinds["std_msgs/msg/Header"](stamp, "camera")
            h, w = SIZE
            png = cv2.imencode(".png", image)[1].ravel()
            messages = {
                "/left": kinds["sensor_msgs/msg/CompressedImage"](header, "png", png),
                "/right": kinds["sensor_msgs/msg/Image"](header, h, w, "rgb8", 0, 3 * w, image[..., ::-1].ravel()),
                "/depth": kinds["sensor_msgs/msg/Image"](
                    header, h, w, "16UC1", 0, 2 * w, np.frombuffer(struct.pack("<H", 7) * h * w, np.uint8)
                ),
            }
            for topic, message in messages.items():
                data = store.serialize_cdr(message, message.__msgtype__)
                writer.add_message(channels[topic], log_ns, bytes(data), log_ns)
        writer.finish()
    return path


def test_every_camera_of_a_recording_is_a_view_and_depth_is_none(tmp_path: Path) -> None:
    path = _write_mcap(tmp_path / "run.mcap", 6)
    views = open_views(find_recordings([str(path)])[0], path)
    assert [view.name for view in views] == ["/left", "/right"]
    for view in views:
        frames = list(view.frames())
        assert [frame.pts_ns for frame in frames] == [i * 50_000_000 for i in range(6)]
        assert frames[3].t_capture_ns == 10**18 + 150_000_000
        for frame, expected in zip(frames, pictures(6, 0), strict=True):
            assert np.array_equal(frame.image, expected)


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = _write_mcap(tmp_path / "run.mcap", 8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    views = {view.name: view for view in open_views(find_recordings([str(path)])[0], path)}
    frames = list(views["/right"].frames())
    assert 1 <= len(frames) < 8
    assert views["/right"].lost["corrupt"] == 1
    path.write_bytes(b"no recording at all")
    with pytest.raises(SourceError, match="no MCAP file"):
        open_views(find_recordings([str(path)])[0], path)


def test_sqlite_bags_of_ros_2_are_read(tmp_path: Path) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs the recording extra")
    typesys = pytest.importorskip("rosbags.typesys", reason="needs the recording extra")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    h, w = SIZE
    with rosbag2.Writer(tmp_path / "bag", version=8, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer:
        name = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/cam", name, typestore=store)
        for index, image in enumerate(pictures(4, 0)):
            stamp = store.types["builtin_interfaces/msg/Time"](5, index)
            header = store.types["std_msgs/msg/Header"](stamp, "camera")
            message = store.types[name](header, h, w, "bgr8", 0, 3 * w, image.ravel())
            writer.write(connection, 10**9 + index, store.serialize_cdr(message, name))
    (recording,) = find_recordings([str(tmp_path / "bag")])
    (view,) = open_views(recording, tmp_path / "bag")
    frames = list(view.frames())
    assert (view.name, [frame.t_capture_ns for frame in frames]) == ("/cam", [5 * 10**9 + i for i in range(4)])
    assert np.array_equal(frames[2].image, pictures(4, 0)[2])
