"""The bridge's command line: exit codes, one line, what is missing. And rclpy as far as a stand-in can tell."""

import sys
import types
from unittest import mock

import pytest

from ros_bridge.__main__ import main
from ros_bridge.backends.base import Options
from ros_bridge.topics import LATCHED, SENSOR
from streaming.ros.definitions import IMAGE, LABEL_INFO
from tests.ros_bridge.graphs import free_port


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--backend", "dds"], 2, "auto, rclpy, rospy, zenoh, cyclonedds"),
        (["--labels", "mono16"], 2, "mono16"),
        (["--qos", "labels=fast"], 2, "unknown item 'fast'"),
        (["--namespace", "/1"], 2, "no ROS name"),
        (["--camera", "cam"], 2, "SOURCE=VALUE"),
        (["--frame-id", "cam=a", "--frame-id", "cam=b"], 2, "already"),
        (["--domain", "300"], 2, "0 to 232"),
        (["--overlay-hz", "30"], 2, "0 to 10"),
        (["--backend", "zenoh", "--endpoint", "nowhere", "--listen", "tcp/127.0.0.1:0"], 2, "cannot subscribe"),
        (["--backend", "zenoh", "--listen", "tcp/192.0.2.1:1"], 3, "cannot be opened"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str):
    assert main(arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]


def test_no_master_says_where_it_was_looked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend("")  # what rospy's search adds is undone
    monkeypatch.setenv("ROS_MASTER_URI", f"http://127.0.0.1:{free_port()}")
    code = main(["--backend", "rospy"])
    said = capsys.readouterr().err
    assert code == 3
    assert "no master at http://127.0.0.1" in said or "apt-get install python3-rospy" in said


def stand_in() -> tuple[dict[str, types.ModuleType], mock.MagicMock]:
    """Modules that record what is asked of rclpy; it cannot be installed from packages here."""
    rclpy = mock.MagicMock(name="rclpy")
    rclpy.executors.ExternalShutdownException = type("ExternalShutdownException", (Exception,), {})
    messages = types.ModuleType("sensor_msgs.msg")
    messages.Image = type("Image", (), {})  # type: ignore[attr-defined]
    modules = {name: getattr(rclpy, name) for name in ("executors", "qos", "signals")}
    found = {"rclpy": rclpy, **{f"rclpy.{name}": module for name, module in modules.items()}}
    return {**found, "sensor_msgs": types.ModuleType("sensor_msgs"), "sensor_msgs.msg": messages}, rclpy


def test_rclpy_gets_ready_bytes_and_the_documented_qos():
    modules, rclpy = stand_in()
    with mock.patch.dict(sys.modules, modules):
        sys.modules.pop("ros_bridge.backends.rclpy", None)
        from engine.errors import SourceError
        from ros_bridge.backends.rclpy import RclpyBackend

        backend = RclpyBackend(Options(node="eyes", domain=4))
        node = rclpy.create_node.return_value
        writer = backend.advertise("/unseen/cam/labels", IMAGE, LATCHED)
        writer.write(b"cdr")
        backend.subscribe("/front/image_raw", IMAGE, SENSOR, print)
        with pytest.raises(SourceError, match="apt-get install ros-<distribution>-vision-msgs"):
            backend.advertise("/unseen/cam/label_info", LABEL_INFO, LATCHED)
        backend.close()
    rclpy.create_node.assert_called_once_with("eyes")
    assert rclpy.init.call_args.kwargs["domain_id"] == 4
    kind, topic, latched = node.create_publisher.call_args.args
    assert (kind.__name__, topic) == ("Image", "/unseen/cam/labels")
    node.create_publisher.return_value.publish.assert_called_once_with(b"cdr")
    assert node.create_subscription.call_args.kwargs == {"raw": True}
    profiles = [call.kwargs for call in rclpy.qos.QoSProfile.call_args_list]
    assert latched is rclpy.qos.QoSProfile.return_value
    assert [profile["depth"] for profile in profiles] == [1, 1]
    assert profiles[0]["durability"] is rclpy.qos.DurabilityPolicy.TRANSIENT_LOCAL
    assert profiles[1]["reliability"] is rclpy.qos.ReliabilityPolicy.BEST_EFFORT
    node.destroy_node.assert_called_once_with()
