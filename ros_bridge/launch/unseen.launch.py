"""A ROS 2 camera through the engine: `ros2 launch .../unseen.launch.py image:=/camera/image_raw`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "image": ("/camera/image_raw", "sensor_msgs/Image, or CompressedImage if it ends in /compressed"),
    "source": ("camera", "name of the source; topics appear under /unseen/SOURCE"),
    "python": ("python3", "interpreter that unseen-engine is installed for"),
    "endpoint": ("tcp://127.0.0.1:5555", "where the engine publishes"),
    "backend": ("auto", "rclpy, zenoh or cyclonedds"),
}


def generate_launch_description() -> LaunchDescription:
    """The engine and its bridge; both may start in any order, and again after a crash."""
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    source = [value["source"], "=ros://", value["image"], "?backend=", value["backend"]]
    camera = [value["source"], "=", value["image"]]
    engine = ["engine.run", "--source", source, "--publish", value["endpoint"]]
    bridge = ["ros_bridge", "--backend", value["backend"], "--endpoint", value["endpoint"], "--camera", camera]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=text) for n, (d, text) in ARGUMENTS.items()),
            *(
                ExecuteProcess(cmd=[value["python"], "-m", *command], output="screen", respawn=True, respawn_delay=2.0)
                for command in (engine, bridge)
            ),
        ]
    )
