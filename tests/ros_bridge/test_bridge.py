"""Bridge processes seen by programs that know nothing of this project, on real graphs."""

import dataclasses
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq

from engine.scene import CommitInfo, Object, Scene
from streaming import keys
from streaming.publisher import Publisher
from streaming.wire import encode_scene
from tests.ros_bridge.graphs import PATIENCE_S, Graph, Program, have

ANY_PORT = "tcp://127.0.0.1:0"


def scene(frame: int, size: tuple[int, int] = (48, 64)) -> Scene:
    """Two objects, one of them with an id and a label beyond 8 bits; the map tells the frame."""
    labels = np.zeros(size, np.uint16)
    labels[10:20, 5:25] = 3
    labels[30:40, 40:60] = 300
    labels[frame % 10, 0] = 3
    objects = (
        Object(7, 3, 0.75, (0, 0, 25, 20), int((labels == 3).sum()), frame, 0.1, 0.9),
        Object(70_000, 300, 0.5, (40, 30, 60, 40), 200, frame, 0.2, 0.3),
    )
    return Scene(frame, "final", labels, objects, "cam", time.time_ns(), commit=CommitInfo(True, 1, 0.0))


@contextmanager
def publishing(publisher: Publisher, hz: float = 20.0, size: tuple[int, int] = (48, 64)) -> Iterator[dict[int, Scene]]:
    """Publish scenes in the background; yields them by stamp."""
    done, sent = threading.Event(), {}

    def run() -> None:
        while not done.wait(1 / hz):
            item = scene(len(sent), size)
            sent[item.t_capture_ns] = item
            publisher.publish(item)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()


def level(lines: list[dict], name: str) -> int | None:
    """Level of the last status of that name."""
    told = [line["statuses"][name]["level"] for line in lines if name in line.get("statuses", {})]
    return told[-1] if told else None


def assert_equal_to_the_wire(reader: Program, sent: dict[int, Scene]) -> None:
    for line in reader.about("labels"):
        expected = sent[line["stamp_ns"]].labels
        assert (line["encoding"], line["bigendian"]) == ("16UC1", 0)
        assert (line["height"], line["width"], line["step"]) == (48, 64, 128)
        assert line["crc"] == zlib.crc32(expected.astype("<u2").tobytes())
    for line in reader.about("detections"):
        expected = sent[line["stamp_ns"]].objects
        assert [item["id"] for item in line["objects"]] == [item.id for item in expected]
        assert [item["score"] for item in line["objects"]] == [item.score for item in expected]
        assert [item["class"] for item in line["objects"]] in ([None, None], ["3", "300"])
        assert [item["box"] for item in line["objects"]] == [[12.5, 10.0, 25.0, 20.0], [50.0, 35.0, 20.0, 10.0]]


def test_a_foreign_reader_gets_what_is_on_the_wire(graph: Graph):
    """Pixels, boxes, ids and capture time of every topic; the latched one also for whoever comes late."""
    with Publisher(ANY_PORT) as publisher, publishing(publisher) as sent:
        graph.bridge(publisher.endpoint, "--frame-id", "cam=cam_lens")
        topics = ("labels", "detections", "label_info", "overlay/compressed", "/diagnostics")
        reader = graph.listen("/unseen/cam", "--topics", ",".join(topics))
        reader.until(have(10, "labels", "detections"))
        reader.until(have(1, *topics))
        assert_equal_to_the_wire(reader, sent)
        # The mapping never changed, so this was sent once, before the reader was there.
        assert reader.about("label_info")[0]["classes"] == [[3, "7"], [300, "70000"]]
        assert {line["frame_id"] for line in reader.about("labels")} == {"cam_lens"}
        picture = reader.about("overlay/compressed")[0]
        assert picture["stamp_ns"] in sent
        decoded = cv2.imdecode(np.frombuffer(bytes.fromhex(picture["data"]), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (24, 32, 3)
        assert level(reader.lines, "unseen: cam") == 0
        late = graph.listen("/unseen/cam", "--topics", "label_info")
        late.until(have(1, "label_info"))


def test_an_engine_with_keys_is_read_and_seen_alive(dds: Graph, tmp_path: Path):
    keys.create(tmp_path / "keys", client="bridge")
    with Publisher(ANY_PORT, keys=keys.load_server(tmp_path / "keys", "data")) as publisher, publishing(publisher):
        dds.bridge(publisher.endpoint, "--client-keys", str(tmp_path / "keys" / "clients" / "bridge"))
        reader = dds.listen("/unseen/cam", "--topics", "labels,/diagnostics")
        reader.until(have(3, "labels"))
        reader.until(lambda lines: level(lines, "unseen: cam") == 0)


def test_a_dead_engine_shows(dds: Graph):
    """Killed, not closed: nothing on the wire says that it ends."""
    publisher = Publisher(ANY_PORT)
    publisher.publish(scene(0))
    dds.bridge(publisher.endpoint)
    reader = dds.listen("/unseen/cam", "--topics", "/diagnostics")
    reader.until(lambda lines: level(lines, "unseen: cam") == 0)
    publisher.close()  # the socket is gone; no end-of-stream was sent
    reader.until(lambda lines: level(lines, "unseen: cam") == 2)


@pytest.mark.parametrize("fixture", ["zenoh", "ros1"])
def test_engine_and_bridge_restart_without_the_other_side(request: pytest.FixtureRequest, fixture: str):
    """Ids are the engine's: whoever restarts, readers go on and see the same ones."""
    graph: Graph = request.getfixturevalue(fixture)
    first = Publisher(ANY_PORT)
    endpoint = first.endpoint
    with publishing(first) as sent:
        bridge = graph.bridge(endpoint)
        # The reader keeps looking for the bridge's endpoint, as a node does for its router.
        reader = graph.listen("/unseen/cam", "--topics", "labels,detections")
        reader.until(have(5, "detections"))
        assert bridge.stop() == 0
        before = len(reader.about("detections"))
        graph.bridge(endpoint)
        reader.until(have(before + 5, "detections"))
    first.close()
    before = len(reader.about("detections"))
    with Publisher(endpoint) as second, publishing(second) as again:
        reader.until(have(before + 5, "detections"))
        assert_equal_to_the_wire(reader, {**sent, **again})


def test_a_stuck_reader_does_not_hold_up_the_others(graph: Graph):
    """A stopped process that reads reliably, 600 kB a message: the others get fresh ones all the same."""
    with Publisher(ANY_PORT) as publisher, publishing(publisher, size=(480, 640)):
        graph.bridge(publisher.endpoint)
        options = ("--topics", "labels", *(["--reliable"] if graph.backend == "cyclonedds" else []))
        stuck, reader = (graph.listen("/unseen/cam", *options) for _ in range(2))
        for program in (stuck, reader):
            program.until(have(2, "labels"))
        stopped_ns = time.time_ns()
        stuck.process.send_signal(signal.SIGSTOP)
        try:
            before = len(reader.about("labels"))
            # Long enough to fill every buffer on the way: 24 MB.
            reader.until(have(before + 40, "labels"))
        finally:
            stuck.process.send_signal(signal.SIGCONT)
    newest = reader.about("labels")[-10:]
    assert all(line["stamp_ns"] > stopped_ns for line in newest)


def test_malformed_messages_are_counted_and_skipped(dds: Graph):
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.bind("tcp://127.0.0.1:*")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    dds.bridge(endpoint)
    reader = dds.listen("/unseen/cam", "--topics", "labels,/diagnostics")
    good = scene(0)
    parts = encode_scene(good, session="a" * 32, seq=0)
    far = dataclasses.replace(good, t_capture_ns=2**62)  # valid on the wire, beyond what a ROS stamp holds

    def malformed() -> int:
        counts = [line["statuses"]["unseen: bridge"]["values"] for line in reader.about("/diagnostics")]
        return max((int(values["malformed messages"]) for values in counts), default=0)

    try:
        assert socket.poll(PATIENCE_S * 1000)  # the bridge subscribes
        for message in ([parts[0], b"no json", parts[2]], [parts[0], parts[1]]):
            socket.send_multipart(message)
        deadline_s, seq = time.monotonic() + PATIENCE_S, 1
        # A broken label map is found on reading, which a newer scene may forestall: send until one was read.
        while not (reader.about("labels") and malformed() >= 3):
            assert time.monotonic() < deadline_s, reader.lines[-3:]
            broken = [parts[0], parts[1].replace(b'"seq":0', b'"seq":%d' % seq), parts[2][:-3]]
            for message in (
                encode_scene(far, session="b" * 32, seq=seq),
                broken,
                encode_scene(good, session="a" * 32, seq=seq + 1),
            ):
                socket.send_multipart(message)
                time.sleep(0.1)
            seq += 2
        assert {line["stamp_ns"] for line in reader.about("labels")} == {good.t_capture_ns}
    finally:
        context.destroy(linger=0)


def test_cyclones_own_types_read_what_we_write(dds: Graph):
    """The announced type decodes our bytes in Cyclone's own reader, and the QoS on offer is the documented one."""
    with Publisher(ANY_PORT) as publisher, publishing(publisher):
        dds.bridge(publisher.endpoint, "--qos", "detections=best_effort,depth=2")
        reader = dds.listen("/unseen/cam", "--topics", "labels,detections,label_info", "--generic")
        reader.until(have(1, "labels", "detections", "label_info"))
    matched = {line["matched"]: line for line in reader.lines if "matched" in line}
    assert "Reliable" in matched["labels"]["reliability"]
    assert "Volatile" in matched["labels"]["durability"]
    assert "depth=5" in matched["labels"]["history"]
    assert "TransientLocal" in matched["label_info"]["durability"]
    assert "BestEffort" in matched["detections"]["reliability"]
    assert "depth=2" in matched["detections"]["history"]
    assert reader.about("labels")[0]["generic"] == "Image_"
    assert reader.about("labels")[0]["width"] == 64


def test_nodes_on_zenoh_are_told_who_publishes(zenoh: Graph):
    """Liveliness tokens as rmw_zenoh reads them to build `ros2 topic list`."""
    with Publisher(ANY_PORT) as publisher, publishing(publisher):
        zenoh.bridge(publisher.endpoint)
        reader = zenoh.listen("/unseen/cam", "--topics", "labels")
        reader.until(lambda lines: sum("token" in line for line in lines) >= 6)
    tokens = [line["token"] for line in reader.lines if "token" in line]
    assert any(token.endswith("/0/0/NN/%/%/unseen_bridge") for token in tokens)
    labels = next(token for token in tokens if "%unseen%cam%labels" in token)
    assert "/MP/%/%/unseen_bridge/%unseen%cam%labels/sensor_msgs::msg::dds_::Image_/RIHS01_" in labels
    assert labels.endswith("/::,5:,:,:,,")


def test_plain_keys_for_the_dds_bridge(zenoh: Graph):
    with Publisher(ANY_PORT) as publisher, publishing(publisher) as sent:
        zenoh.bridge(publisher.endpoint, "--keys", "ros2dds")
        reader = zenoh.listen("/unseen/cam", "--topics", "labels,detections", "--plain")
        reader.until(have(3, "labels", "detections"))
        assert_equal_to_the_wire(reader, sent)


@pytest.mark.parametrize("fixture", ["zenoh", "ros1"])
def test_the_camera_gives_its_frame_calibration_and_pictures(request: pytest.FixtureRequest, fixture: str):
    """Labels of a camera's image: its frame_id, its camera_info with the labels' stamp, its picture in the overlay."""
    graph: Graph = request.getfixturevalue(fixture)
    with Publisher(ANY_PORT) as publisher:
        publisher.set_state("cam", "live")
        graph.bridge(publisher.endpoint, "--camera", "cam=/front/image_raw")
        reader = graph.listen("/unseen/cam", "--topics", "labels,camera_info,overlay/compressed")
        camera = graph.camera("/front/image_raw", "--hz", "10")
        answered = 0
        deadline_s = time.monotonic() + PATIENCE_S
        while not have(3, "labels", "camera_info", "overlay/compressed")(reader.lines):
            assert time.monotonic() < deadline_s, (reader.lines[-3:], graph.programs[0].errors)
            frames = [line for line in camera.lines if "frame" in line]
            for line in frames[answered:]:
                time.sleep(0.03)  # an engine takes time as well
                item = scene(line["frame"])
                object.__setattr__(item, "t_capture_ns", line["stamp_ns"])
                publisher.publish(item)
            answered = len(frames)
            time.sleep(0.01)
    stamps = {line["stamp_ns"]: line["frame"] for line in camera.lines if "frame" in line}
    assert {line["stamp_ns"] for line in reader.about("camera_info")} <= set(stamps)
    assert reader.about("camera_info")[-1]["K"] == [500.0, 0.0, 32.0, 0.0, 500.0, 24.0, 0.0, 0.0, 1.0]
    assert reader.about("labels")[-1]["frame_id"] == "lens"
    picture = reader.about("overlay/compressed")[-1]
    decoded = cv2.imdecode(np.frombuffer(bytes.fromhex(picture["data"]), np.uint8), cv2.IMREAD_COLOR)
    # The lower left corner shows no object: every pixel of the camera says the frame's number.
    assert np.median(decoded[20:, :8]) == pytest.approx(stamps[picture["stamp_ns"]] % 256, abs=4)
