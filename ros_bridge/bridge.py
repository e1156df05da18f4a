"""The loop: scenes from the engine become messages on ROS topics; how it goes becomes diagnostics."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ros_bridge import topics
from ros_bridge.backends.base import Backend, Writer
from ros_bridge.camera import Camera
from ros_bridge.health import Health
from ros_bridge.statistics import SourceStatistics, source_level, source_status
from ros_bridge.topics import Qos
from streaming.ros import messages
from streaming.ros.cdr import TYPE_NAMES, EncodeError, Serialiser
from streaming.ros.messages import LabelEncoding, Level, RosMessage, Status
from streaming.ros.names import Namespaces
from streaming.subscriber import MaskSubscriber
from streaming.wire import Message

_log = logging.getLogger("unseen.ros")

DIAGNOSTICS_EVERY_S = 1.0
_TICK_S = 0.1
"""How long to wait for a scene before looking after heartbeats and diagnostics."""


@dataclass(frozen=True)
class BridgeOptions:
    """What to publish and under which names.

    Attributes:
        endpoint: of the engine. kind: which of its two answers. every: all scenes in order instead of the newest.
        keys: folder of a client's keys, for an engine with `--keys`.
        source: only this one; None takes all.
        namespace: the engine's. namespaces, frame_ids, cameras: source -> namespace, frame, image topic.
        labels: encoding of the label image. overlay_hz: at most so many overlays a second, 0 for none.
        qos: per topic.
    """

    endpoint: str = "tcp://127.0.0.1:5555"
    keys: Path | None = None
    kind: Literal["final", "provisional"] = "final"
    every: bool = False
    source: str | None = None
    namespace: str = "/unseen"
    namespaces: Mapping[str, str] = field(default_factory=dict)
    frame_ids: Mapping[str, str] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)
    labels: LabelEncoding = "16UC1"
    overlay_hz: float = 10.0
    qos: Mapping[str, Qos] = field(default_factory=lambda: topics.qos_table(()))


class _Output:
    """The topics of one source."""

    def __init__(self, backend: Backend, serialiser: Serialiser, namespace: str, options: BridgeOptions) -> None:
        self.statistics = SourceStatistics()
        self.object_ids: tuple[tuple[int, int], ...] | None = None
        self.overlay_due_s = 0.0
        self._serialiser = serialiser
        types: dict[str, type[RosMessage]] = {
            topics.LABELS: messages.Image,
            topics.DETECTIONS: messages.Detections,
            topics.LABEL_INFO: messages.LabelInfo,
        }
        if options.overlay_hz > 0:
            types[topics.OVERLAY] = messages.CompressedImage
        if options.cameras:
            types[topics.CAMERA_INFO] = messages.CameraInfo
        self._writers: dict[str, Writer] = {
            topic: backend.advertise(f"{namespace}/{topic}", TYPE_NAMES[kind], options.qos[topic])
            for topic, kind in types.items()
        }

    def publish(self, topic: str, make: Callable[[], RosMessage]) -> bool:
        """Make, encode and send what `topic` gets, if there is such a topic and anybody reads it."""
        writer = self._writers.get(topic)
        if writer is None or not writer.wanted():
            return False
        writer.write(self._serialiser.encode(make()))
        self.statistics.published[topic] += 1
        return True


class Bridge:
    """Publishes what the engine finds until `stop`.

    The engine may start later, end and start again; so may the readers. Topics of a source appear with its first
    sign of life.

    Raises:
        UsageError: the endpoint is malformed, or the folder holds no usable keys.
    """

    def __init__(self, backend: Backend, options: BridgeOptions) -> None:
        self._options = options
        self._backend = backend
        self._serialiser = Serialiser(backend.generation)
        self._namespaces = Namespaces(options.namespace, dict(options.namespaces))
        self._outputs: dict[str, _Output] = {}
        self._unencodable = 0
        self._stop = threading.Event()
        self._subscriber = MaskSubscriber(
            options.endpoint, kind=options.kind, source=options.source, every=options.every, keys=options.keys
        )
        try:
            self._health = Health(options.endpoint, options.keys)
        except BaseException:
            self._subscriber.close()
            raise
        self._cameras = {
            source: Camera(backend, topic, keep_images=options.overlay_hz > 0)
            for source, topic in options.cameras.items()
        }
        self._diagnostics = backend.advertise(
            topics.DIAGNOSTICS, TYPE_NAMES[messages.Diagnostics], options.qos[topics.DIAGNOSTICS.strip("/")]
        )
        self._diagnostics_due_s = 0.0
        self._told: list[tuple[Level, str]] = []

    def stop(self) -> None:
        """End after the scene in hand; safe from signal handlers and other threads."""
        self._stop.set()

    def run(self) -> None:
        """Publish until stopped, then release the engine's sockets (the backend stays open)."""
        try:
            while not self._stop.is_set():
                message = self._subscriber.read(_TICK_S)
                if message is not None:
                    self._attempt(message)
                self._health.poll()
                for source in self._health.sources:
                    if self._options.source in (None, source):
                        self._output(source)
                self._tell()
        finally:
            self._subscriber.close()
            self._health.close()

    def _output(self, source: str) -> _Output:
        if source not in self._outputs:
            namespace = self._namespaces.of(source)
            self._outputs[source] = _Output(self._backend, self._serialiser, namespace, self._options)
        return self._outputs[source]

    def _attempt(self, message: Message) -> None:
        """Publish a scene; one that ROS types cannot hold is counted with the malformed."""
        try:
            self._publish(message)
        except (EncodeError, OverflowError) as error:
            if not self._unencodable:
                _log.warning("not published: %s", error)
            self._unencodable += 1

    def _publish(self, message: Message) -> None:
        """One scene: first what explains it, then the label map, then what is only for looking at."""
        self._health.heard(message.source, message.session)
        output = self._output(message.source)
        camera = self._cameras.get(message.source)
        frame_id = self._frame_id(message.source, camera)
        info = messages.label_info(message, frame_id)
        if info.object_ids != output.object_ids and output.publish(topics.LABEL_INFO, lambda: info):
            output.object_ids = info.object_ids
        output.publish(topics.DETECTIONS, lambda: messages.detections(message, frame_id))
        output.publish(topics.LABELS, lambda: messages.labels_image(message, frame_id, self._options.labels))
        if camera is not None and (calibration := camera.info) is not None:
            output.publish(topics.CAMERA_INFO, lambda: messages.camera_info(calibration, message))
        output.statistics.scene(message)
        self._publish_overlay(output, message, frame_id, camera)

    def _publish_overlay(self, output: _Output, message: Message, frame_id: str, camera: Camera | None) -> None:
        now_s = time.monotonic()
        if now_s < output.overlay_due_s:
            return

        def make() -> RosMessage:
            image = None if camera is None else camera.image(message.t_capture_ns)
            return messages.overlay(message, frame_id, image)

        if output.publish(topics.OVERLAY, make):
            output.overlay_due_s = now_s + 1 / self._options.overlay_hz

    def _frame_id(self, source: str, camera: Camera | None) -> str:
        if source in self._options.frame_ids:
            return self._options.frame_ids[source]
        if camera is not None and camera.frame_id is not None:
            return camera.frame_id
        return self._namespaces.frame_id(source)

    def _tell(self) -> None:
        """Diagnostics: every second, and at once when a level changes."""
        told = [self._bridge_level(), *(source_level(source, self._health) for source in self._outputs)]
        now_s = time.monotonic()
        if told == self._told and now_s < self._diagnostics_due_s:
            return
        self._told = told
        self._diagnostics_due_s = now_s + DIAGNOSTICS_EVERY_S
        if self._diagnostics.wanted():
            content = messages.Diagnostics(messages.Header(time.time_ns(), ""), self._statuses())
            self._diagnostics.write(self._serialiser.encode(content))

    def _bridge_level(self) -> tuple[Level, str]:
        if self._outputs:
            return Level.OK, "running"
        return Level.ERROR, f"no engine heard at {self._options.endpoint}"

    def _statuses(self) -> tuple[Status, ...]:
        endpoint = self._options.endpoint
        counts: dict[str, object] = {
            "missed scenes": self._subscriber.missed,
            "skipped scenes": self._subscriber.skipped,
            "malformed messages": self._subscriber.malformed
            + self._unencodable
            + sum(camera.malformed for camera in self._cameras.values()),
        }
        return (
            messages.status(
                "unseen: bridge", endpoint, *self._bridge_level(), {"backend": self._backend.name, **counts}
            ),
            *(
                source_status(source, endpoint, self._health, output.statistics.values())
                for source, output in self._outputs.items()
            ),
        )
