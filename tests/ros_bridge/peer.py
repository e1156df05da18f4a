"""A ROS program that knows nothing of this project: the standard definitions, the middleware, rosbags or rospy.

    python peer.py listen rospy|zenoh|cyclonedds NAMESPACE [--connect ENDPOINT] [--domain N] [--topics A,B]
    python peer.py camera rospy|zenoh|cyclonedds TOPIC [--frames N] [--hz HZ] [--size HxW] ...

`listen` prints one JSON line per message; `camera` publishes an image whose pixels all say the frame number, with
its camera_info. For rospy run it with the Python that ROS was installed for.
"""

import argparse
import itertools
import json
import sys
import time
import zlib

VISION_ROS2 = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "Detection2D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id\n",
    "Detection2DArray": "std_msgs/Header header\nDetection2D[] detections\n",
    "VisionClass": "uint16 class_id\nstring class_name\n",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}
HEADER = "uint32 seq\ntime stamp\nstring frame_id\n"
VISION_ROS1 = {
    "Detection2DArray": f"""Header header
Detection2D[] detections
{"=" * 80}
MSG: std_msgs/Header
{HEADER}{"=" * 80}
MSG: vision_msgs/Detection2D
Header header
ObjectHypothesisWithPose[] results
BoundingBox2D bbox
sensor_msgs/Image source_img
{"=" * 80}
MSG: vision_msgs/ObjectHypothesisWithPose
int64 id
float64 score
geometry_msgs/PoseWithCovariance pose
{"=" * 80}
MSG: geometry_msgs/PoseWithCovariance
Pose pose
float64[36] covariance
{"=" * 80}
MSG: geometry_msgs/Pose
Point position
Quaternion orientation
{"=" * 80}
MSG: geometry_msgs/Point
float64 x
float64 y
float64 z
{"=" * 80}
MSG: geometry_msgs/Quaternion
float64 x
float64 y
float64 z
float64 w
{"=" * 80}
MSG: vision_msgs/BoundingBox2D
geometry_msgs/Pose2D center
float64 size_x
float64 size_y
{"=" * 80}
MSG: geometry_msgs/Pose2D
float64 x
float64 y
float64 theta
{"=" * 80}
MSG: sensor_msgs/Image
Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data
""",
    "LabelInfo": f"""Header header
VisionClass[] class_map
float32 threshold
{"=" * 80}
MSG: std_msgs/Header
{HEADER}{"=" * 80}
MSG: vision_msgs/VisionClass
uint16 class_id
string class_name
""",
}
TYPES = {
    "labels": ("sensor_msgs", "Image"),
    "detections": ("vision_msgs", "Detection2DArray"),
    "label_info": ("vision_msgs", "LabelInfo"),
    "overlay/compressed": ("sensor_msgs", "CompressedImage"),
    "camera_info": ("sensor_msgs", "CameraInfo"),
    "/diagnostics": ("diagnostic_msgs", "DiagnosticArray"),
}
CDR_LE = b"\x00\x01\x00\x00"


def tell(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def report(topic, message, received_ns):
    """One line about a message of either generation of ROS."""
    stamp = message.header.stamp
    fields = {
        "topic": topic,
        "received_ns": received_ns,
        "stamp_ns": int(stamp.to_nsec() if hasattr(stamp, "to_nsec") else stamp.sec * 10**9 + stamp.nanosec),
        "frame_id": message.header.frame_id,
    }
    if topic == "labels":
        data = bytes(message.data)
        fields.update(encoding=message.encoding, height=message.height, width=message.width, step=message.step)
        fields.update(bigendian=int(message.is_bigendian), crc=zlib.crc32(data), bytes=len(data))
    elif topic == "detections":
        fields["objects"] = [detection(item) for item in message.detections]
    elif topic == "label_info":
        fields["classes"] = [[int(item.class_id), item.class_name] for item in message.class_map]
    elif topic == "overlay/compressed":
        fields.update(format=message.format, data=bytes(message.data).hex())
    elif topic == "camera_info":
        fields["K"] = [float(v) for v in (message.K if hasattr(message, "K") else message.k)]
    else:
        fields["statuses"] = {
            item.name: {
                "level": item.level if isinstance(item.level, int) else item.level[0],
                "message": item.message,
                "values": {pair.key: pair.value for pair in item.values},
            }
            for item in message.status
        }
    tell(**fields)


def detection(item):
    hypothesis, centre = item.results[0], item.bbox.center
    ros2 = hasattr(hypothesis, "hypothesis")
    position = centre.position if ros2 else centre
    return {
        "id": int(item.id) if ros2 else hypothesis.id,
        "class": hypothesis.hypothesis.class_id if ros2 else None,
        "score": hypothesis.hypothesis.score if ros2 else hypothesis.score,
        "box": [position.x, position.y, item.bbox.size_x, item.bbox.size_y],
    }


def store():
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    for name, text in VISION_ROS2.items():
        types.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    return types


def full(topic, namespace):
    return topic if topic.startswith("/") else f"{namespace}/{topic}"


# rospy: real classes of the Debian packages where there are any


def listen_rospy(options, topics):
    import rospy
    from genpy.dynamic import generate_dynamic

    rospy.init_node("peer", anonymous=True, disable_signals=True)
    for topic in topics:
        package, name = TYPES[topic]
        if package == "vision_msgs":
            kind = generate_dynamic(f"vision_msgs/{name}", VISION_ROS1[name])[f"vision_msgs/{name}"]
        else:
            kind = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
        rospy.Subscriber(
            full(topic, options.name),
            kind,
            lambda message, topic: report(topic, message, time.time_ns()),
            callback_args=topic,
            buff_size=2**24,
            tcp_nodelay=True,
        )
    tell(ready=True)
    sys.stdin.read()


def camera_rospy(options):
    import rospy
    from sensor_msgs.msg import CameraInfo, Image

    rospy.init_node("camera", anonymous=True, disable_signals=True)
    images = rospy.Publisher(options.name, Image, queue_size=2)
    infos = rospy.Publisher(info_topic(options.name), CameraInfo, queue_size=2)

    def send(stamp_ns, height, width, data):
        stamp = rospy.Time(stamp_ns // 10**9, stamp_ns % 10**9)
        image = Image(height=height, width=width, encoding="bgr8", step=width * 3, data=data)
        info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", K=intrinsics(height, width))
        for message, publisher in ((info, infos), (image, images)):
            message.header.stamp, message.header.frame_id = stamp, "lens"
            publisher.publish(message)

    run_camera(options, send, images.get_num_connections)


def info_topic(image_topic):
    return image_topic.rpartition("/")[0] + "/camera_info"


def intrinsics(height, width):
    return [500.0, 0.0, width / 2, 0.0, 500.0, height / 2, 0.0, 0.0, 1.0]


def run_camera(options, send, readers):
    height, width = map(int, options.size.split("x"))
    while readers() == 0:
        time.sleep(0.05)
    due_s = time.monotonic()
    for number in itertools.count() if options.frames == 0 else range(options.frames):
        stamp_ns = time.time_ns()
        send(stamp_ns, height, width, bytes([number % 256]) * (height * width * 3))
        tell(frame=number, stamp_ns=stamp_ns)
        due_s += 1 / options.hz
        time.sleep(max(0.0, due_s - time.monotonic()))
    tell(done=True)
    sys.stdin.read()


def ros2_image_and_info(types, stamp_ns, height, width, data):
    import numpy as np

    made = types.types
    header = made["std_msgs/msg/Header"](
        made["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9), "lens"
    )
    roi = made["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    image = made["sensor_msgs/msg/Image"](header, height, width, "bgr8", 0, width * 3, np.frombuffer(data, np.uint8))
    matrix = np.array(intrinsics(height, width))
    info = made["sensor_msgs/msg/CameraInfo"](
        header, height, width, "plumb_bob", np.zeros(5), matrix, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
    )
    return (
        bytes(types.serialize_cdr(image, "sensor_msgs/msg/Image")),
        bytes(types.serialize_cdr(info, "sensor_msgs/msg/CameraInfo")),
    )


# Zenoh: keys and attachments as rmw_zenoh's design document describes them


def zenoh_session(options):
    import zenoh

    config = zenoh.Config()
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("timestamping/enabled", "true")
    config.insert_json5("connect/endpoints", json.dumps([options.connect]))
    config.insert_json5("listen/endpoints", json.dumps(["tcp/127.0.0.1:0"]))
    return zenoh.open(config)


def listen_zenoh(options, topics):
    from zenoh import ext

    types, session, kept = store(), zenoh_session(options), []

    def receive(topic, sample):
        received_ns = time.time_ns()
        package, name = TYPES[topic]
        kind = f"{package}/msg/{name}"
        key = full(topic, options.name).strip("/")
        if not options.plain:
            key = f"{options.domain}/{key}/{package}::msg::dds_::{name}_/{types.hash_rihs01(kind)}"
            attachment = sample.attachment.to_bytes()
            assert len(attachment) == 33, attachment
            assert attachment[16] == 16, attachment
        assert str(sample.key_expr) == key, (str(sample.key_expr), key)
        report(topic, types.deserialize_cdr(sample.payload.to_bytes(), kind), received_ns)

    for topic in topics:
        key = full(topic, options.name).strip("/")
        key = key if options.plain else f"{options.domain}/{key}/**"
        kept.append(
            ext.declare_advanced_subscriber(
                session,
                key,
                lambda sample, topic=topic: receive(topic, sample),
                history=ext.HistoryConfig(detect_late_publishers=True) if topic == "label_info" else None,
            )
        )
    tokens = session.liveliness().declare_subscriber(
        f"@ros2_lv/{options.domain}/**", lambda sample: tell(token=str(sample.key_expr)), history=True
    )
    tell(ready=True)
    sys.stdin.read()
    del tokens
    session.close()


def camera_zenoh(options):
    types, session = store(), zenoh_session(options)
    publishers = [
        session.declare_publisher(
            f"{options.domain}/{topic.strip('/')}/sensor_msgs::msg::dds_::{name}_/"
            + types.hash_rihs01(f"sensor_msgs/msg/{name}")
        )
        for topic, name in ((options.name, "Image"), (info_topic(options.name), "CameraInfo"))
    ]

    def send(*content):
        for publisher, data in zip(publishers, ros2_image_and_info(types, *content)):  # noqa: B905
            publisher.put(data)

    run_camera(options, send, lambda: int(publishers[0].matching_status.matching))
    session.close()


# Cyclone DDS: its own reader for whatever type the writer announces, and IDL written down by hand for the camera


def listen_cyclonedds(options, topics):
    import threading

    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
    from cyclonedds.core import InstanceState, Qos, ReadCondition, SampleState, ViewState, WaitSet
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.dynamic import get_types_for_typeid
    from cyclonedds.qos import Policy
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    types, participant = store(), DomainParticipant(options.domain)
    wanted = {f"rt{full(topic, options.name)}": topic for topic in topics}

    def read(topic, endpoint):
        package, name = TYPES[topic]
        kind, _ = get_types_for_typeid(participant, endpoint.type_id, duration(seconds=5))
        assert kind.__idl_typename__.replace(".", "::") == f"{package}::msg::dds_::{name}_", kind.__idl_typename__
        if options.generic:
            kept = kind.deserialize
        else:
            # The binding decodes an image in tens of ms: take the bytes, decode with rosbags.
            class Bytes:
                def __init__(self, data):
                    self.data = bytes(data)

            kind.deserialize = classmethod(lambda cls, data, *_, **__: Bytes(data))
            kept = None
        # What a ROS 2 subscription asks for: sensor data is read best-effort, the latched topic is not.
        latched = topic == "label_info"
        qos = Qos(
            Policy.Reliability.Reliable(duration(seconds=1))
            if latched or options.reliable
            else Policy.Reliability.BestEffort,
            Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
            Policy.History.KeepLast(5),
            Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
        )
        reader = DataReader(participant, Topic(participant, f"rt{full(topic, options.name)}", kind), qos)
        waiting = WaitSet(participant)
        waiting.attach(ReadCondition(reader, SampleState.NotRead | ViewState.Any | InstanceState.Alive))
        tell(
            matched=topic,
            reliability=str(endpoint.qos[Policy.Reliability]),
            durability=str(endpoint.qos[Policy.Durability]),
            history=str(endpoint.qos[Policy.History]),
        )
        while True:
            waiting.wait(duration(seconds=1))
            for sample in reader.take(16):
                received_ns = time.time_ns()
                if kept is not None and hasattr(sample, "header"):
                    tell(
                        topic=topic,
                        generic=str(type(sample).__name__),
                        frame_id=sample.header.frame_id,
                        width=getattr(sample, "width", None),
                    )
                elif hasattr(sample, "data"):
                    report(topic, types.deserialize_cdr(sample.data, f"{package}/msg/{name}"), received_ns)

    publications = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
    tell(ready=True)
    while True:
        for endpoint in publications.take(16):
            topic = wanted.pop(getattr(endpoint, "topic_name", None), None)
            if topic is not None:
                threading.Thread(target=read, args=(topic, endpoint), daemon=True).start()
        time.sleep(0.02)


def camera_cyclonedds(options):
    from dataclasses import dataclass

    from cyclonedds.core import Qos
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.annotations import final
    from cyclonedds.idl.types import int32, sequence, uint8, uint32
    from cyclonedds.pub import DataWriter
    from cyclonedds.qos import Policy
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    @dataclass
    @final
    class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
        sec: int32
        nanosec: uint32

    @dataclass
    @final
    class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
        stamp: Time
        frame_id: str

    @dataclass
    @final
    class Image(IdlStruct, typename="sensor_msgs.msg.dds_.Image_"):
        header: Header
        height: uint32
        width: uint32
        encoding: str
        is_bigendian: uint8
        step: uint32
        data: sequence[uint8]

    participant = DomainParticipant(options.domain)
    qos = Qos(
        Policy.Reliability.Reliable(duration(milliseconds=100)),
        Policy.History.KeepLast(5),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )
    writer = DataWriter(participant, Topic(participant, f"rt{options.name}", Image), qos)

    def send(stamp_ns, height, width, data):
        header = Header(Time(stamp_ns // 10**9, stamp_ns % 10**9), "lens")
        writer.write(Image(header, height, width, "bgr8", 0, width * 3, data))

    run_camera(options, send, lambda: len(writer.get_matched_subscriptions()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["listen", "camera"])
    parser.add_argument("middleware", choices=["rospy", "zenoh", "cyclonedds"])
    parser.add_argument("name")
    parser.add_argument("--connect")
    parser.add_argument("--domain", type=int, default=0)
    parser.add_argument("--topics", default=",".join(TYPES))
    parser.add_argument("--plain", action="store_true", help="keys of zenoh-bridge-ros2dds")
    parser.add_argument("--generic", action="store_true", help="let Cyclone's own types decode")
    parser.add_argument("--reliable", action="store_true", help="read everything reliably (Cyclone)")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--size", default="48x64")
    options = parser.parse_args()
    if options.what == "listen":
        globals()[f"listen_{options.middleware}"](options, options.topics.split(","))
    else:
        globals()[f"camera_{options.middleware}"](options)


if __name__ == "__main__":
    main()
