"""`--mcap`, read by libraries that know nothing of us; faults on purpose."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the recording extra")

from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from engine.errors import StoreError, UsageError
from engine.frame import Frame
from engine.run import main
from streaming.ros import packages
from streaming.sinks import mcap_file
from streaming.sinks.mcap import McapSink
from streaming.sources import open_source
from tests.conftest import REPOSITORY
from tests.streaming.scenes import eventually, make_object, make_scene

SIZE = (48, 64)
START_NS = 1_700_000_000_123_456_789


def frame(index: int, source: str = "cam") -> Frame:
    image = np.full((*SIZE, 3), (10 * index % 250, 80, 160), np.uint8)
    return Frame(image, index, START_NS + index * 40_000_000, source)


def scene(index: int, source: str = "cam", **changes: Any):
    return make_scene(index, source=source, size=SIZE, t_capture_ns=START_NS + index * 40_000_000, **changes)


def decoded(path: Path) -> list[tuple[str, Any, Any]]:
    """(topic, MCAP message, ROS message) in the order of log times, by the foreign decoder; sums are checked."""
    with path.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return [(found.channel.topic, found.message, found.decoded_message) for found in reader.iter_decoded_messages()]


def test_foreign_readers_get_pictures_labels_and_detections(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    sink = McapSink(path)
    scenes = [scene(0), scene(1), scene(2, objects=(make_object(70_000, 1, box=(1, 1, 3, 4)), make_object(5, 2)))]
    for index in range(3):
        # Finals come later than their frames; provisional scenes are not recorded.
        finals = [scenes[index - 1]] if index else []
        sink.step(frame(index), [*finals, scene(index, kind="provisional")])
    sink.step(None, [scenes[2]])
    sink.close()
    assert sink.summary() == {"file": str(path), "frames": 3, "scenes": 3, "lost": 0}

    found = decoded(path)
    by_topic = {topic: [(raw, ros) for name, raw, ros in found if name == topic] for topic, _, _ in found}
    counts = {topic: len(messages) for topic, messages in by_topic.items()}
    root = "/unseen/cam/"
    assert counts == {f"{root}image/compressed": 3, f"{root}labels": 3, f"{root}detections": 3, f"{root}label_info": 2}
    for index, (raw, ros) in enumerate(by_topic[f"{root}labels"]):
        assert ros.encoding == "16UC1"
        assert ros.header.frame_id == "cam_optical_frame"
        assert ros.header.stamp.sec * 10**9 + ros.header.stamp.nanosec == raw.log_time == scenes[index].t_capture_ns
        assert raw.sequence == index
        labels = np.frombuffer(ros.data, "<u2").reshape(ros.height, ros.width)
        assert np.array_equal(labels, scenes[index].labels)
    for index, (_, ros) in enumerate(by_topic[f"{root}image/compressed"]):
        picture = cv2.imdecode(np.frombuffer(ros.data, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(picture.astype(int) - frame(index).image).max() <= 3
    big, small = by_topic[f"{root}detections"][2][1].detections
    assert (big.id, big.results[0].hypothesis.class_id, small.id) == ("70000", "1", "5")
    assert (big.bbox.center.position.x, big.bbox.center.position.y) == (2.0, 2.5)
    assert (big.bbox.size_x, big.bbox.size_y) == (2.0, 3.0)


def test_rosbags_reads_it_as_a_bag_with_types_and_quality_of_service(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    sink = McapSink(path)
    sink.step(frame(0), [scene(0)])
    sink.step(frame(0, "cam-2"), [scene(0, "cam-2")])
    sink.close()
    with AnyReader([path]) as reader:
        seen = {
            connection.topic: reader.deserialize(data, connection.msgtype) for connection, _, data in reader.messages()
        }
        latched = [
            c.topic for c in reader.connections if c.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        ]
    assert sorted(latched) == ["/unseen/cam/label_info", "/unseen/cam_2/label_info"]
    assert len(seen) == 8
    assert seen["/unseen/cam_2/label_info"].class_map[0].class_name == "7"


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from streaming.sinks.mcap import McapSink
from tests.streaming.test_mcap_sink import frame, scene
sink, index = McapSink(Path({path!r})), 0
while True:
    sink.step(frame(index), [scene(index)])
    print(index, time.monotonic(), flush=True)
    index += 1
    time.sleep(0.02)
"""


def test_killed_without_warning_all_but_the_last_second_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    code = WRITER.format(repository=str(REPOSITORY), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written: list[tuple[int, float]] = []
        while len(written) < 2 or written[-1][1] - written[0][1] < 2.5:
            index, at_s = process.stdout.readline().split()
            written.append((int(index), float(at_s)))
        process.kill()
    # The flush comes with the first frame after the second is over.
    steps = np.diff([at_s for _, at_s in written]).max()
    safe = sum(at_s < written[-1][1] - 1.1 - steps for _, at_s in written)
    assert safe >= 5

    labels = []
    # Where the writing stopped a reader may find anything.
    with path.open("rb") as stream, contextlib.suppress(Exception):
        for _, channel, message in NonSeekingReader(stream).iter_messages(log_time_order=False):
            labels += [message.sequence] if channel.topic.endswith("/labels") else []
    assert labels == list(range(len(labels)))
    assert len(labels) >= safe
    with open_source(str(path)) as source:
        played = [one.index for one in source]
    # A frame may be written and its scene not yet.
    assert played in (labels, [*labels, len(labels)])


def test_a_full_disk_costs_messages_and_not_the_file(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcap_file, "_CHUNK_BYTES", 50_000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    sink = McapSink(small_disk / "a.mcap")
    seen = 0

    def see(count: int) -> None:
        nonlocal seen
        for index in range(seen, seen + count):
            noise = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), np.uint8)
            sink.step(Frame(noise, index, START_NS + index, "cam"), [])
        seen += count

    while sink.lost < 20:
        assert seen < 2000, "half a megabyte did not become full"
        see(1)
    kept = sink.frames
    assert kept > 20
    assert len(caplog.messages) == 1
    assert "No space left on device; recording waits until there is room, the engine goes on" in caplog.messages[0]
    ballast.unlink()
    assert eventually(lambda: see(1) or sink.frames > kept, timeout_s=60)
    see(3)
    sink.close()
    assert len(caplog.messages) == 2
    assert f"recording goes on, {sink.lost} frames and scenes lost" in caplog.messages[1]
    assert sink.frames + sink.lost == seen
    assert len(decoded(sink.path)) == sink.frames


def test_a_disk_that_stays_full_leaves_what_it_took(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcap_file, "_CHUNK_BYTES", 50_000)
    sink = McapSink(small_disk / "a.mcap")
    index = 0
    while not sink.lost:
        noise = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), np.uint8)
        sink.step(Frame(noise, index, START_NS + index, "cam"), [])
        index += 1
        assert index < 2000
    sink.close()
    assert "has no index" in caplog.messages[-1]
    with open_source(str(sink.path)) as source:
        played = [one.index for one in source]
    assert played == list(range(len(played)))
    assert 0.9 * sink.frames < len(played) <= sink.frames


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"somebody's")
    with pytest.raises(StoreError, match=r"exists already \(10 bytes\)"):
        McapSink(path)
    assert path.read_bytes() == b"somebody's"
    with pytest.raises(UsageError, match=r"ending in \.mcap"):
        McapSink(tmp_path / "a.bag")
    sink = McapSink(tmp_path / "%Y" / "a.mcap")
    sink.close()
    assert sink.path == tmp_path / time.strftime("%Y") / "a.mcap"


def test_without_the_libraries_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert main(["--source", "demo", "--no-publish", "--mcap", str(tmp_path / "a.mcap")]) == 2
    assert "pip install 'unseen-engine[recording]'" in capsys.readouterr().err


def test_the_masks_are_those_of_save_masks_and_ctrl_c_finishes_the_file(tmp_path: Path, motion_model: Path) -> None:
    path, masks = tmp_path / "run.mcap", tmp_path / "out"
    uri = "demo://?live=1&size=120x214&fps=10&frames=0"
    options = ["--no-publish", "--model", str(motion_model), "--mcap", str(path), "--save-masks", str(masks)]
    command = [sys.executable, "-m", "engine.run", "--source", uri, "--every-frame", *options]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert eventually(lambda: len(list(masks.glob("masks/*.png"))) > 8, timeout_s=240)
            os.kill(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "recording:" in said

    ids: dict[int, dict[int, int]] = {}
    compared = 0
    for topic, raw, ros in sorted(decoded(path), key=lambda item: not item[0].endswith("/detections")):
        if topic.endswith("/detections"):
            pairs = ((int(item.results[0].hypothesis.class_id), int(item.id)) for item in ros.detections)
            ids[raw.sequence] = dict(pairs)
        elif topic.endswith("/labels"):
            saved = cv2.imread(str(masks / "masks" / f"{raw.sequence:05d}.png"), cv2.IMREAD_UNCHANGED)
            lookup = np.zeros(0x10000, np.uint16)
            lookup[list(ids[raw.sequence])] = list(ids[raw.sequence].values())
            assert np.array_equal(lookup[np.frombuffer(ros.data, "<u2").reshape(ros.height, ros.width)], saved)
            compared += 1
    assert compared > 8
    assert compared == len(list(masks.glob("masks/*.png")))
    assert any(ids.values())
