"""What docs/ros.md and the launch files promise."""

import re
import runpy
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import ros_bridge
from engine.pixels import ENCODINGS
from ros_bridge.__main__ import build_parser

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ros.md"
LAUNCH = Path(ros_bridge.__file__).parent / "launch"


def test_the_depth_example_finds_the_object():
    """A wall 2 m away, an object at 1 m in the upper left: its points, in metres, where the pinhole model has them."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def " in block)
    scope: dict = {}
    exec(code, scope)
    labels, depth = np.zeros((4, 6), "<u2"), np.full((4, 6), 2000, "<u2")
    labels[:2, :2], depth[:2, :2] = 300, 1000
    depth[0, 0] = 0  # no measurement
    image = {"height": 4, "width": 6}
    info = types.SimpleNamespace(k=[2.0, 0, 3.0, 0, 4.0, 2.0, 0, 0, 1])
    points = scope["points_of"](
        300,
        types.SimpleNamespace(data=labels.tobytes(), **image),
        types.SimpleNamespace(data=depth.tobytes(), **image),
        info,
    )
    assert points.tolist() == [[-1.0, -0.5, 1.0], [-1.5, -0.25, 1.0], [-1.0, -0.25, 1.0]]


def test_every_option_and_encoding_on_the_page_exists():
    page = PAGE.read_text()
    known = {option for action in build_parser()._actions for option in action.option_strings}
    shown = set(re.findall(r"(?:ros_bridge|`)[^`\n]*?(--[a-z-]+)", page))
    assert {"--qos", "--camera"} <= shown
    assert shown - known <= {"--source", "--json", "--system-site-packages"}
    named = re.search(r"Encodings: (.*?)\. A header", page, re.DOTALL).group(1).replace("\n", " ")
    bayer = [f"bayer_{pattern}8" for pattern in re.search(r"bayer_\{(.*?)\}8", named).group(1).split(",")]
    assert {*re.sub(r", bayer.*", "", named).split(", "), *bayer} == set(ENCODINGS)


def test_the_ros_2_launch_file_starts_both_with_options_that_exist():
    """`launch` is part of ROS 2; a stand-in joins the pieces of each argument as it would."""
    values = {"image": "/front/image_raw", "source": "front", "python": "py", "endpoint": "tcp://x", "backend": "zenoh"}
    started = []

    def execute(cmd, **_):
        started.append(["".join(part) if isinstance(part, list) else part for part in cmd])

    actions = mock.MagicMock(ExecuteProcess=execute)
    stand_in = {
        "launch": mock.MagicMock(),
        "launch.actions": actions,
        "launch.substitutions": types.SimpleNamespace(LaunchConfiguration=values.__getitem__),
    }
    with mock.patch.dict(sys.modules, stand_in):
        runpy.run_path(str(LAUNCH / "unseen.launch.py"))["generate_launch_description"]()
    engine, bridge = started
    assert engine[:5] == ["py", "-m", "engine.run", "--source", "front=ros:///front/image_raw?backend=zenoh"]
    assert bridge[:3] == ["py", "-m", "ros_bridge"]
    options = build_parser().parse_args(bridge[3:])
    assert (options.backend, options.endpoint, options.camera) == ("zenoh", "tcp://x", ["front=/front/image_raw"])


@pytest.mark.parametrize("name", ["package.xml", "run", "unseen.launch"])
def test_what_roslaunch_needs_is_shipped(name: str):
    assert (LAUNCH / name).is_file()
    assert name != "run" or (LAUNCH / name).stat().st_mode & 0o111
