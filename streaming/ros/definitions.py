"""The message definitions in use, for both generations of ROS, and what is derived from them."""

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"

# vision_msgs is not among the types rosbags ships. Field names, types and order are all that matters: they decide
# the bytes, the ROS 2 type hash and the ROS 1 md5 (tests compare these with published values).
_SHARED = {
    "vision_msgs/msg/Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": ("std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"),
}
_ROS2 = {  # vision_msgs 4
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id\n"
    ),
}
_ROS1 = {  # vision_msgs 0.0.1, Noetic
    "vision_msgs/msg/BoundingBox2D": "geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": ("int64 id\nfloat64 score\ngeometry_msgs/PoseWithCovariance pose\n"),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nsensor_msgs/Image source_img\n"
    ),
}


@cache
def ros2_types() -> Typestore:
    """ROS 2 definitions; the types used here are the same from Humble to Kilted."""
    return _with(Stores.ROS2_HUMBLE, _SHARED | _ROS2)


@cache
def ros1_types() -> Typestore:
    """ROS 1 (Noetic) definitions. LabelInfo is not in Noetic's vision_msgs; it has the fields of ROS 2."""
    return _with(Stores.ROS1_NOETIC, _SHARED | _ROS1)


def _with(base: Stores, definitions: dict[str, str]) -> Typestore:
    store = get_typestore(base)
    for name, text in definitions.items():
        store.register(get_types_from_msg(text, name))
    return store


def type_hash(type_name: str) -> str:
    """Type hash of ROS 2 (REP 2011): `RIHS01_` and 64 hexadecimal digits."""
    return ros2_types().hash_rihs01(type_name)


def dds_type(type_name: str) -> str:
    """Name of the type on DDS and Zenoh: `sensor_msgs/msg/Image` is `sensor_msgs::msg::dds_::Image_`."""
    package, kind, name = type_name.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def ros1_type(type_name: str) -> str:
    """Name of the type in ROS 1: `sensor_msgs/msg/Image` is `sensor_msgs/Image`."""
    package, _, name = type_name.split("/")
    return f"{package}/{name}"


def ros1_definition(type_name: str) -> tuple[str, str]:
    """Full definition text and md5 of a type, which ROS 1 peers exchange when they connect."""
    return ros1_types().generate_msgdef(type_name)
