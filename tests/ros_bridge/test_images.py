"""Images from a ROS topic as a source: stamps, pixels, errors a user can act on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

import ros_bridge
from engine.errors import SourceError, UsageError
from streaming.sources import open_source, parse_source
from streaming.sources.base import Source
from streaming.sources.ros import ros_name
from tests.ros_bridge.graphs import Graph, free_port, have


@contextmanager
def source_on(graph: Graph, topic: str, **limits: float) -> Iterator[Source]:
    """The source a user would open, with the graph's environment around its process."""
    zenoh = [f"connect={value}" for option, value in pairs(graph.peer_options) if option == "--connect"]
    domain = [f"domain={value}" for option, value in pairs(graph.peer_options) if option == "--domain"]
    uri = "&".join([f"ros://{topic}?backend={graph.backend}", *zenoh, *domain])
    with mock.patch.dict(os.environ, graph.environment), open_source(uri, **limits) as source:
        yield source


def pairs(options: list[str]) -> list[tuple[str, str]]:
    return list(zip(options[::2], options[1::2], strict=True))


@pytest.mark.parametrize("fixture", ["dds", "ros1"])
def test_frames_carry_the_cameras_pixels_and_stamps(request: pytest.FixtureRequest, fixture: str):
    graph: Graph = request.getfixturevalue(fixture)
    camera = graph.camera("/front/image_raw", "--hz", "15")
    with source_on(graph, "/front/image_raw") as source:
        assert (source.name, source.live, source.size) == ("front", True, (48, 64))
        frames = [source.read() for _ in range(8)]
    last = frames[-1].t_capture_ns
    camera.until(lambda lines: any(line.get("stamp_ns") == last for line in lines))
    sent = {line["stamp_ns"]: line["frame"] for line in camera.lines if "frame" in line}
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert (frame.image == sent[frame.t_capture_ns] % 256).all()
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    lost = frames[-1].index + 1 - len(frames)
    assert sum(source.dropped.values()) == lost


def test_a_camera_that_stops_is_an_error_with_the_time_waited(ros1: Graph):
    ros1.camera("/front/image_raw", "--frames", "3")
    with source_on(ros1, "/front/image_raw", read_timeout_s=1.0) as source, pytest.raises(SourceError, match="for 1 s"):
        list(source)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ros://camera/image_raw", "three slashes"),
        ("ros:///", "three slashes"),
        ("ros:///camera/image_raw?bakend=zenoh", "unknown parameter 'bakend'"),
    ],
)
def test_an_address_that_cannot_be_meant(uri: str, says: str):
    with pytest.raises(UsageError, match=says):
        open_source(uri)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ros:///camera/image_raw?backend=dds", "backend 'dds' is unknown"),
        ("ros:///camera/9?backend=zenoh", "no ROS name"),
        ("ros:///camera/image_raw?backend=zenoh&connect=nowhere", "cannot be opened"),
    ],
)
def test_what_the_image_process_says_reaches_the_user(uri: str, says: str):
    with pytest.raises(SourceError, match=says):
        open_source(uri)


def test_sources_are_named_after_their_camera():
    assert ros_name("ros:///camera/image_raw") == "camera"
    assert ros_name("ros:///robot/front/image_raw/compressed?backend=rospy") == "robot-front"
    assert ros_name("ros:///image") == "image"
    assert parse_source("left=ros:///cameras/left?domain=3") == ("left", "ros:///cameras/left?domain=3")


def test_a_ros_user_never_touches_zeromq(ros1: Graph, motion_model: Path):
    """The launch file we ship, run by roslaunch: a rospy camera in, labels and its calibration out, stamps kept."""
    folder = Path(ros_bridge.__file__).parent / "launch"
    camera = ros1.camera("/front/image_raw", "--hz", "5", "--size", "120x160")
    reader = ros1.listen("/unseen/front", "--topics", "labels,camera_info,/diagnostics")
    arguments = {
        "image": "/front/image_raw",
        "source": "front",
        "python": sys.executable,
        "endpoint": f"tcp://127.0.0.1:{free_port()}",
        "engine_options": f"--model {motion_model}",
    }
    environment = {**ros1.environment, "ROS_PACKAGE_PATH": str(folder)}
    command = ["roslaunch", str(folder / "unseen.launch"), *(f"{name}:={value}" for name, value in arguments.items())]
    launch = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        reader.until(have(3, "labels", "camera_info"), timeout_s=300)
    finally:
        launch.send_signal(signal.SIGINT)
        launch.wait(120)
    stamps = {line["stamp_ns"] for line in camera.lines if "frame" in line}
    for line in reader.about("labels"):
        assert (line["height"], line["width"], line["frame_id"]) == (120, 160, "lens")
        assert line["stamp_ns"] in stamps
    assert {line["stamp_ns"] for line in reader.about("camera_info")} <= stamps
