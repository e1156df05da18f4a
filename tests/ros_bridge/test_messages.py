"""The mapping and the bytes, without any network: against rosbags, published hashes and OpenCV."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.pixels import ENCODINGS
from engine.scene import CommitInfo, Scene
from ros_bridge import topics, zenoh_keys
from ros_bridge.backends import choose
from streaming.ros import messages
from streaming.ros.cdr import TYPE_NAMES, DecodeError, EncodeError, Serialiser
from streaming.ros.definitions import (
    DETECTIONS,
    DIAGNOSTICS,
    IMAGE,
    LABEL_INFO,
    ros1_definition,
    ros1_types,
    ros2_types,
    type_hash,
)
from streaming.ros.messages import Header, Image, Level
from streaming.ros.names import Namespaces
from streaming.ros.pixels import decompress, to_bgr
from streaming.wire import Message, decode, encode_scene
from tests.streaming.scenes import make_object

STAMP_NS = 1_700_000_000_123_456_789


def on_the_wire(labels: np.ndarray, objects=(), **changes) -> Message:
    scene = Scene(3, "final", labels, tuple(objects), "cam", STAMP_NS, commit=CommitInfo(True, 1, 0.0), **changes)
    return decode(encode_scene(scene, session="a" * 32, seq=0))


def content(message: messages.RosMessage, generation: int):
    """What rosbags makes of our bytes."""
    name, data = TYPE_NAMES[type(message)], Serialiser(generation).encode(message)
    if generation == 1:
        return ros1_types().deserialize_ros1(data, name)
    return ros2_types().deserialize_cdr(data, name)


def test_definitions_are_the_standard_ones():
    """Type hashes of ROS 2's vision_msgs 4 and sensor_msgs, md5 sums of Noetic, as published with them."""
    assert type_hash(DETECTIONS) == "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
    assert type_hash(LABEL_INFO) == "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"
    assert type_hash(IMAGE) == "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"
    assert ros1_definition(DETECTIONS)[1] == "402071f61477de256df9f1aa45e6e4c8"
    assert ros1_definition(IMAGE)[1] == "060021388200f6f0f447d0fcd9c64743"
    assert ros1_definition(DIAGNOSTICS)[1] == "60810da900de1dd6ddd437c3503511da"


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
    frame_id=st.text("abc_/é", max_size=12),
    generation=st.sampled_from([1, 2]),
)
def test_label_maps_survive(shape, seed, frame_id, generation):
    """Any size, any label, any length of strings in front (which moves the alignment)."""
    labels = np.random.default_rng(seed).integers(0, 2**16, shape, dtype=np.uint16)
    read = content(messages.labels_image(on_the_wire(labels), frame_id), generation)
    assert (read.encoding, read.is_bigendian, read.step) == ("16UC1", 0, shape[1] * 2)
    assert (read.data.view("<u2").reshape(read.height, read.width) == labels).all()
    assert read.header.frame_id == frame_id
    assert read.header.stamp.sec * 10**9 + read.header.stamp.nanosec == STAMP_NS


def test_the_bytes_are_those_of_rosbags_own_serialiser():
    """Appending the pixels is the same as serialising them."""
    image = messages.labels_image(on_the_wire(np.arange(12, dtype=np.uint16).reshape(3, 4)), "lens")
    for generation, store in ((1, ros1_types()), (2, ros2_types())):
        data = Serialiser(generation).encode(image)
        read = content(image, generation)
        again = store.serialize_ros1(read, IMAGE) if generation == 1 else store.serialize_cdr(read, IMAGE)
        assert data == bytes(again)


def test_eight_bit_labels_saturate():
    labels = np.array([[0, 1, 255, 256, 65535]], np.uint16)
    image = messages.labels_image(on_the_wire(labels), "lens", "mono8")
    assert (image.encoding, image.step) == ("mono8", 5)
    assert bytes(image.data) == bytes([0, 1, 255, 255, 255])


def test_label_info_tells_which_value_is_which_object():
    labels = np.array([[9, 2]], np.uint16)
    objects = [make_object(70_000, 9, box=(0, 0, 1, 1)), make_object(5, 2, box=(1, 0, 2, 1))]
    message = on_the_wire(labels, objects)
    for generation in (1, 2):
        read = content(messages.label_info(message, "lens"), generation)
        assert [(item.class_id, item.class_name) for item in read.class_map] == [(2, "5"), (9, "70000")]
    read = content(messages.detections(message, "lens"), 2)
    assert [(item.id, item.results[0].hypothesis.class_id) for item in read.detections] == [("70000", "9"), ("5", "2")]
    assert [item.id for item in content(messages.detections(message, "lens"), 1).detections[0].results] == [70_000]


def test_diagnostics():
    status = messages.status("unseen: cam", "tcp://x", Level.STALE, "gone", {"fps": 29.97, "state": "live"})
    for generation in (1, 2):
        read = content(messages.Diagnostics(Header(STAMP_NS, ""), (status,)), generation).status[0]
        assert (read.level, read.name, read.message, read.hardware_id) == (3, "unseen: cam", "gone", "tcp://x")
        assert [(pair.key, pair.value) for pair in read.values] == [("fps", "30.0"), ("state", "live")]


def test_what_a_ros_type_cannot_hold_is_an_error_of_one_kind():
    far = Header(10**25, "lens")
    for generation in (1, 2):
        for message in (messages.LabelInfo(far, ()), Image(far, 1, 1, "mono8", 1, memoryview(b"1"))):
            with pytest.raises(EncodeError, match="stamp 10"):
                Serialiser(generation).encode(message)
        # Half a character is what JSON may hold; diagnostics must go on all the same.
        status = messages.status("unseen: cam", "", Level.OK, "live", {"model": "a\ud800b"})
        read = content(messages.Diagnostics(Header(0, ""), (status,)), generation)
        assert read.status[0].values[0].value == "a?b"


def test_serialising_an_image_costs_a_copy():
    """A full-HD label map is appended, not walked through: one pass over 4 MB, not 2 million elements."""
    image = messages.labels_image(on_the_wire(np.zeros((1080, 1920), np.uint16)), "lens")
    serialiser = Serialiser(2)
    times_s = []
    for _ in range(5):
        start_s = time.thread_time()
        serialiser.encode(image)
        times_s.append(time.thread_time() - start_s)
    assert min(times_s) < 0.02  # element by element takes a second


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_becomes_bgr(encoding: str):
    """A flat colour with padded rows: nothing depends on neighbours, everything on channel order and step."""
    bgr = np.full((6, 8, 3), (30, 90, 200), np.uint8)
    grey = int(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)[0, 0])
    tolerance, expected = 0, (30, 90, 200)
    if encoding in ("bgr8", "8UC3"):
        pixels = bgr
    elif encoding in ("rgb8",):
        pixels = bgr[..., ::-1]
    elif encoding in ("bgra8", "8UC4", "rgba8"):
        alpha = np.full((6, 8, 1), 255, np.uint8)
        pixels = np.concatenate([bgr[..., ::-1] if encoding == "rgba8" else bgr, alpha], 2)
    elif encoding in ("mono8", "8UC1"):
        pixels, expected = np.full((6, 8), grey, np.uint8), (grey,) * 3
    elif encoding == "mono16":
        pixels, expected = np.full((6, 8), grey * 256 + 17, "<u2").view(np.uint8), (grey,) * 3
    elif encoding.startswith("bayer"):
        pixels = np.zeros((6, 8), np.uint8)
        for place, colour in enumerate(encoding[6:10]):
            pixels[place // 2 :: 2, place % 2 :: 2] = {"b": 30, "g": 90, "r": 200}[colour]
    else:
        b, g, r = expected  # BT.601, video range
        y = round(16 + 0.257 * r + 0.504 * g + 0.098 * b)
        u, v = round(128 - 0.148 * r - 0.291 * g + 0.439 * b), round(128 + 0.439 * r - 0.368 * g - 0.071 * b)
        pair = (u, y, v, y) if encoding in ("yuv422", "uyvy") else (y, u, y, v)
        pixels, tolerance = np.tile(np.array(pair, np.uint8), (6, 4)), 4
    rows = np.ascontiguousarray(pixels).reshape(6, -1)
    padded = np.pad(rows, ((0, 0), (0, 5)), constant_values=99)
    image = Image(Header(0, ""), 6, 8, encoding, padded.shape[1], memoryview(padded.tobytes()))
    found = to_bgr(image)
    assert found.shape == (6, 8, 3)
    assert np.abs(found.astype(int) - expected).max() <= tolerance
    with pytest.raises(DecodeError, match="are needed"):
        to_bgr(replace(image, data=image.data[:-6]))


def test_big_endian_grey():
    image = Image(Header(0, ""), 1, 2, "mono16", 4, memoryview(bytes([7, 200, 9, 1])), bigendian=True)
    assert to_bgr(image)[0, :, 0].tolist() == [7, 9]


def test_images_that_cannot_be_used():
    with pytest.raises(DecodeError, match="'32FC1' is not supported"):
        to_bgr(Image(Header(0, ""), 1, 1, "32FC1", 4, memoryview(bytes(4))))
    with pytest.raises(DecodeError, match="no picture"):
        decompress(messages.CompressedImage(Header(0, ""), "jpeg", memoryview(b"no jpeg")))


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200), generation=st.sampled_from([1, 2]), cut=st.integers(0, 80))
def test_bytes_that_are_no_image_are_an_error_of_one_kind(data, generation, cut):
    serialiser = Serialiser(generation)
    whole = serialiser.encode(Image(Header(STAMP_NS, "lens"), 2, 2, "mono8", 2, memoryview(bytes(4))))
    for broken in (data, whole[: min(cut, len(whole) - 1)]):
        try:
            serialiser.decode_image(broken)
        except DecodeError:
            continue
        assert broken == data  # random bytes may spell an image, a truncated one may not


def test_quality_of_service():
    table = topics.qos_table(["labels=best_effort,depth=1", "diagnostics=transient_local"])
    assert table["labels"] == topics.Qos(reliable=False, depth=1)
    assert table["diagnostics"].transient_local
    assert table["label_info"] == topics.LATCHED
    assert table["detections"] == topics.Qos(reliable=True, transient_local=False, depth=5)
    for wrong in ("labels", "lables=reliable", "labels=fast", "labels=depth=0", "labels=depth=-1"):
        with pytest.raises(UsageError, match="--qos"):
            topics.qos_table([wrong])


def test_namespaces_are_legal_distinct_and_stable():
    spaces = Namespaces("/unseen", {"front": "/robot/front"})
    names = [spaces.of(source) for source in ("front", "cam-1", "cam_1", "cam.1", "0", "kamera süd")]
    assert names[:2] == ["/robot/front", "/unseen/cam_1"]
    assert len(set(names)) == len(names)
    assert [topics.check_name(name, "name") for name in names] == names
    assert spaces.of("cam_1") == names[2]


@pytest.mark.parametrize("name", ["", "/", "/a//b", "/1a", "/a-b", "/a b"])
def test_names_ros_would_refuse(name: str):
    with pytest.raises(UsageError, match="no ROS name"):
        topics.check_name(name, "--namespace")


def test_rmw_zenoh_keys():
    """The example of rmw_zenoh's design document, with our type in its place."""
    image_hash = type_hash(IMAGE)
    assert zenoh_keys.topic_key("/unseen/cam/labels", IMAGE, 2) == (
        f"2/unseen/cam/labels/sensor_msgs::msg::dds_::Image_/{image_hash}"
    )
    assert zenoh_keys.node_token("aac3", "listener", 0) == "@ros2_lv/0/aac3/0/0/NN/%/%/listener"
    assert zenoh_keys.end_token("8b20", "talker", 0, 10, "MP", "/chatter", IMAGE, topics.Qos(depth=7)) == (
        f"@ros2_lv/0/8b20/0/10/MP/%/%/talker/%chatter/sensor_msgs::msg::dds_::Image_/{image_hash}/::,7:,:,:,,"
    )
    latched = topics.Qos(reliable=False, transient_local=True, depth=1)
    assert zenoh_keys.qos_text(latched) == "2:1:,1:,:,:,,"
    beside = zenoh_keys.attachment(1, STAMP_NS, b"g" * 16)
    assert (len(beside), beside[16], beside[17:]) == (33, 16, b"g" * 16)
    assert int.from_bytes(beside[:8], "little") == 1
    assert int.from_bytes(beside[8:16], "little") == STAMP_NS


def test_auto_says_which_backend_and_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    absent = {"rclpy": "not installed", "rospy": "no master"}
    name, why = choose(absent.get)
    assert name == "cyclonedds"
    assert why == "rclpy: not installed; rospy: no master; cyclonedds: available"
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_zenoh_cpp")
    assert choose(absent.get)[0] == "zenoh"
    assert choose({}.get)[0] == "rclpy"
    with pytest.raises(UsageError, match="pip install"):
        choose(lambda name: "not installed")
