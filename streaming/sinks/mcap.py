"""`--mcap`: frames, label maps and detections as ROS 2 messages in one file."""

import logging
from functools import cache
from pathlib import Path

from engine.frame import Frame
from engine.scene import Scene
from streaming.ros import messages, names
from streaming.ros.cdr import TYPE_NAMES, EncodeError, Serialiser
from streaming.ros.definitions import ros2_types
from streaming.ros.messages import LabelInfo, RosMessage
from streaming.ros.names import Namespaces
from streaming.sinks.mcap_file import McapFile

_log = logging.getLogger("unseen.mcap")

_JPEG_QUALITY = 90
"""What is replayed should look to the network like what it saw."""

_QOS = """\
- history: 1
  depth: 5
  reliability: 1
  durability: {durability}
  deadline: {{sec: 9223372036, nsec: 854775807}}
  lifespan: {{sec: 9223372036, nsec: 854775807}}
  liveliness: 1
  liveliness_lease_duration: {{sec: 9223372036, nsec: 854775807}}
  avoid_ros_namespace_conventions: false
"""
_TRANSIENT_LOCAL, _VOLATILE = 1, 2


@cache
def _definition(type_name: str) -> str:
    return ros2_types().generate_msgdef(type_name, ros_version=2)[0]


class McapSink:
    """Records every frame and its final scene.

    Topics under `/unseen/SOURCE/`: `image/compressed` (JPEG), `labels` (16UC1), `detections` and `label_info` (when it
    changes), all stamped and logged at the time of capture, with the frame index as sequence number.

    Args:
        path: see `McapFile`.

    Attributes:
        frames, scenes: written so far.

    Raises:
        UsageError, StoreError: as `McapFile`.
    """

    def __init__(self, path: Path) -> None:
        self._file = McapFile(path)
        self.frames = self.scenes = 0
        self._serialiser = Serialiser(2)
        self._namespaces = Namespaces(names.DEFAULT_NAMESPACE, {})
        self._channels: dict[str, int] = {}
        self._told: dict[str, tuple[tuple[int, int], ...]] = {}
        self._unencodable = 0

    @property
    def path(self) -> Path:
        """Of the file that is written."""
        return self._file.path

    @property
    def lost(self) -> int:
        """Frames and scenes that are not in the file: the disk failed, or a stamp is beyond what ROS can say."""
        return self._file.lost + self._unencodable

    def summary(self) -> dict[str, object]:
        """{"file", "frames", "scenes", "lost"}; complete after `close`."""
        return {"file": str(self.path), "frames": self.frames, "scenes": self.scenes, "lost": self.lost}

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Write the frame and the final ones among `scenes`."""
        if frame is not None:
            picture = messages.frame_image(frame, self._namespaces.frame_id(frame.source), _JPEG_QUALITY)
            self.frames += self._write(frame.source, frame.index, {names.IMAGE: picture})
        for scene in scenes:
            if scene.kind == "final":
                self.scenes += self._write(scene.source, scene.frame_index, self._describe(scene))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _describe(self, scene: Scene) -> dict[str, RosMessage]:
        """First what explains it, then the label map: readers in order never see a label they cannot name."""
        frame_id = self._namespaces.frame_id(scene.source)
        info = messages.label_info(scene, frame_id)
        told: dict[str, RosMessage] = {}
        if info.object_ids != self._told.get(scene.source):
            told[names.LABEL_INFO] = info
        told[names.DETECTIONS] = messages.detections(scene, frame_id)
        told[names.LABELS] = messages.labels_image(scene, frame_id)
        return told

    def _write(self, source: str, frame_index: int, contents: dict[str, RosMessage]) -> bool:
        """Write what belongs together, all or nothing; False when it is lost."""
        if not self._file.ready():
            return False
        try:
            encoded = {name: self._serialiser.encode(message) for name, message in contents.items()}
        except (EncodeError, OverflowError) as error:
            if not self._unencodable:
                _log.warning("%s: %s; counted as lost from now on", self.path, error)
            self._unencodable += 1
            return False
        for name, message in contents.items():
            channel = self._channel(f"{self._namespaces.of(source)}/{name}", message)
            self._file.write(channel, message.header.stamp_ns, frame_index, encoded[name])
            if isinstance(message, LabelInfo):
                self._told[source] = message.object_ids
        return True

    def _channel(self, topic: str, message: RosMessage) -> int:
        if topic not in self._channels:
            kind = type(message)
            qos = _QOS.format(durability=_TRANSIENT_LOCAL if kind is LabelInfo else _VOLATILE)
            type_name = TYPE_NAMES[kind]
            self._channels[topic] = self._file.add_channel(topic, type_name, _definition(type_name), qos)
        return self._channels[topic]
