"""Recordings of ROS 1 and 2: one view per topic with pictures. MCAP, whole or cut off, rosbag2 and .bag files."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.errors import SourceError, UsageError
from engine.frame import Frame
from engine.pixels import bgr_pixels
from learning.mine.recordings import BAG_METADATA

_KINDS = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/CompressedImage",
)

_NOT_SHOWN = "mono16"
"""Pixels of 16 bits are depth, or the label maps that the engine's own bridge publishes."""

_HEADER_BYTES = 64
"""Damage before this means that nothing of the file can be read."""

Message = tuple[int, Any]
"""Log time in ns and the decoded message."""

Messages = Callable[[str], Generator[Message, None, None]]
"""Opens the messages of a topic, in order."""


class TopicView:
    """The pictures of one topic.

    Args:
        topic: name of the topic, and of the source.
        messages: opens its messages.
    """

    timed = True

    def __init__(self, topic: str, messages: Messages) -> None:
        self.name = topic
        self.lost: Counter[str] = Counter()
        self._messages = messages

    def frames(self) -> Iterator[Frame]:
        """Pictures with the stamps of their messages, or log times where there are none; a picture whose log time
        goes back is left out as `disordered`."""
        first_ns = last_ns = None
        for index, (log_ns, message) in enumerate(self._messages(self.name)):
            image = None if message is None else to_bgr(message)
            if image is None:
                self.lost["corrupt"] += 1
                continue
            if last_ns is not None and log_ns < last_ns:
                self.lost["disordered"] += 1
                continue
            first_ns = log_ns if first_ns is None else first_ns
            last_ns = log_ns
            stamp = message.header.stamp
            stamp_ns = int(stamp.sec) * 10**9 + int(stamp.nanosec)
            yield Frame(image, index, stamp_ns or log_ns, self.name, pts_ns=log_ns - first_ns)


def to_bgr(message: Any) -> np.ndarray | None:
    """Pixels uint8 [H, W, 3] BGR of a decoded Image or CompressedImage; None where it holds no picture we can show."""
    data = np.asarray(message.data, np.uint8)
    if not hasattr(message, "encoding"):
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if message.encoding == _NOT_SHOWN:
        return None
    try:
        size = int(message.height), int(message.width), int(message.step)
        return np.ascontiguousarray(bgr_pixels(message.encoding, *size, data))
    except ValueError:
        return None


def bag_views(path: Path) -> list[TopicView]:
    """One view per topic whose first picture can be decoded, by name.

    Raises:
        UsageError: the libraries that read recordings are not installed.
        SourceError: it cannot be read, or holds no pictures.
    """
    try:
        import mcap  # noqa: F401
        import rosbags  # noqa: F401
    except ImportError:
        raise UsageError(f"'{path}' needs the recording extra: pip install 'unseen-engine[recording]'") from None
    files = _mcap_files(path)
    topics, messages = _open_mcap(files) if files else _open_bag(path)
    views = []
    for topic in sorted(topics):
        first = messages(topic)
        found = next(first, None)
        first.close()
        if found is not None and found[1] is not None and to_bgr(found[1]) is not None:
            views.append(TopicView(topic, messages))
    if not views:
        raise SourceError(f"'{path}': no topic with pictures that can be decoded ({len(topics)} with images)")
    return views


@dataclass(frozen=True)
class _Channel:
    topic: str
    kind: str
    ros1: bool


def _mcap_files(path: Path) -> list[Path]:
    """The MCAP files of a recording in order; what splits a recording is numbered `_0`, `_1`, … `_10`."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".mcap" else []
    return sorted(path.glob("*.mcap"), key=lambda file: (len(file.name), file.name))


def _open_mcap(files: list[Path]) -> tuple[set[str], Messages]:
    """Topics with images, and what opens them; a file that is cut off is read as far as it goes."""
    from rosbags.typesys import Stores, get_typestore

    stores = {False: get_typestore(Stores.ROS2_HUMBLE), True: get_typestore(Stores.ROS1_NOETIC)}

    def raw(topic: str | None) -> Iterator[tuple[_Channel, int, bytes]]:
        for file in files:
            yield from _mcap_messages(file, topic)

    def messages(topic: str) -> Generator[Message, None, None]:
        for channel, log_ns, data in raw(topic):
            yield log_ns, _decoded(stores[channel.ros1], channel, data)

    topics = set()
    for file in files:
        topics |= _mcap_topics(file)
    return topics, messages


def _mcap_topics(file: Path) -> set[str]:
    from mcap.reader import make_reader

    with file.open("rb") as stream:
        try:
            summary = make_reader(stream).get_summary()
        except Exception:  # any bytes may stand where the index of a whole file would be
            summary = None
    if summary is None or not summary.channels:
        return {channel.topic for channel, _, _ in _mcap_messages(file, None)}
    schemas = summary.schemas
    return {
        channel.topic
        for channel in summary.channels.values()
        if channel.schema_id in schemas and schemas[channel.schema_id].name in _KINDS
    }


def _mcap_messages(file: Path, topic: str | None) -> Iterator[tuple[_Channel, int, bytes]]:
    """Images of one topic, or of all, in the order of the file.

    Raises:
        SourceError: no MCAP file, or damaged before the first message.
    """
    from mcap.reader import NonSeekingReader

    last: tuple[_Channel, int] | None = None
    with file.open("rb") as stream:
        found = NonSeekingReader(stream, validate_crcs=True, record_size_limit=file.stat().st_size)
        iterator = found.iter_messages(topics=None if topic is None else [topic], log_time_order=False)
        while True:
            try:
                schema, channel, message = next(iterator)
            except StopIteration:
                return
            except Exception as error:  # what stands where the writing stopped may be anything
                if stream.tell() <= _HEADER_BYTES or (last is None and topic is not None):
                    raise SourceError(f"'{file}' is no MCAP file, or damaged: {_line(error)}") from None
                if last is not None:
                    yield *last, b""  # counts as one that cannot be decoded: that something is missing is known
                return
            if schema is not None and schema.name in _KINDS:
                last = _Channel(channel.topic, schema.name, channel.message_encoding == "ros1"), message.log_time
                yield *last, message.data


def _decoded(store: Any, channel: _Channel, data: bytes) -> Any:
    name = channel.kind if "/msg/" in channel.kind else channel.kind.replace("/", "/msg/")
    try:
        return store.deserialize_ros1(data, name) if channel.ros1 else store.deserialize_cdr(data, name)
    except Exception:  # a message that is not what its type says
        return None


def _open_bag(path: Path) -> tuple[set[str], Messages]:
    """As `_open_mcap`, for rosbag2 folders of other storages, .db3 and .bag files."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    if path.is_dir() and not (path / BAG_METADATA).exists():
        raise SourceError(f"'{path}': no {BAG_METADATA} in it")

    def reader() -> Any:
        return AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))

    def messages(topic: str) -> Generator[Message, None, None]:
        with reader() as bag:
            wanted = [one for one in bag.connections if one.topic == topic]
            for connection, log_ns, data in bag.messages(connections=wanted):
                try:
                    yield log_ns, bag.deserialize(data, connection.msgtype)
                except GeneratorExit:
                    raise
                except Exception:  # a message that is not what its type says
                    yield log_ns, None

    try:
        with reader() as bag:
            return {one.topic for one in bag.connections if one.msgtype in _KINDS}, messages
    except Exception as error:  # the library has no common one
        raise SourceError(f"'{path}' cannot be read as a recording: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]
