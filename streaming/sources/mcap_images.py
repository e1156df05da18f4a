"""Images in MCAP files: which topics have some, and their pixels in order."""

import logging
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from mcap.exceptions import InvalidMagic, McapError
from mcap.reader import SeekingReader
from mcap.records import Channel, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.summary import Summary

from engine.errors import SourceError
from streaming.ros.cdr import DecodeError, Serialiser
from streaming.ros.pixels import decompress, to_bgr

_log = logging.getLogger("unseen.source")

_ENCODINGS = {"cdr": 2, "ros1": 1}
"""Encoding of the messages -> generation of ROS."""
_KINDS = {
    "sensor_msgs/msg/Image": "raw",
    "sensor_msgs/Image": "raw",
    "sensor_msgs/msg/CompressedImage": "compressed",
    "sensor_msgs/CompressedImage": "compressed",
}

Picture = tuple[int, int, np.ndarray | None]
"""Log time and stamp, both Unix ns, and uint8 [H, W, 3] BGR or None where it cannot be decoded."""


@dataclass
class _Topic:
    """Images of one topic in one file. first_ns, last_ns: log times."""

    kind: str
    generation: int
    first: bytes
    first_ns: int
    last_ns: int
    count: int


class _Part:
    """One file: what is in it, and its messages in order.

    Attributes:
        topics: those with images. others: type of every other topic.
        indexed: it can be read by its index, in the order of log times; otherwise in the order of the file.

    Raises:
        SourceError: not an MCAP file, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, _Topic] = {}
        self.others: dict[str, str] = {}
        try:
            with path.open("rb") as stream:
                summary = self._summary(stream)
                self.indexed = summary is not None
                if summary is not None:
                    self._look_up(stream, summary)
                else:
                    self._scan()
        except (McapError, struct.error):
            raise SourceError(f"'{path}' ({path.stat().st_size} bytes) is not an MCAP file") from None
        except OSError as error:
            raise SourceError(f"'{path}': {error.strerror or error}; check the path") from None

    def messages(self, topic: str) -> Iterator[tuple[int, bytes]]:
        """(log time, message) of each image; where the file is cut off or damaged, it ends.

        Raises:
            SourceError: an indexed file is damaged.
        """
        if not self.indexed:
            for channel, _, message in self._in_file_order():
                if channel.topic == topic:
                    yield message.log_time, message.data
            return
        seen = 0
        with self.path.open("rb") as stream:
            found = SeekingReader(stream, validate_crcs=True).iter_messages(topics=[topic])
            while True:
                try:
                    _, _, message = next(found)
                except StopIteration:
                    return
                except Exception as error:  # each compression has errors of its own
                    raise SourceError(f"'{self.path}' is damaged after {seen} images: {_line(error)}") from None
                seen += 1
                yield message.log_time, message.data

    def _summary(self, stream: IO[bytes]) -> Summary | None:
        """The index; None where there is none that tells what `_look_up` needs."""
        reader = SeekingReader(stream, record_size_limit=self.path.stat().st_size)
        try:
            summary = reader.get_summary()
        except Exception:  # any bytes may stand where the index of a whole file would be
            return None
        return summary if summary and summary.chunk_indexes and summary.statistics else None

    def _look_up(self, stream: IO[bytes], summary: Summary) -> None:
        assert summary.statistics is not None
        for channel in summary.channels.values():
            count = summary.statistics.channel_message_counts.get(channel.id, 0)
            kind = self._kind(channel, summary.schemas.get(channel.schema_id))
            if kind is None or not count:
                continue
            ends = []
            for reverse in (False, True):
                stream.seek(0)
                reader = SeekingReader(stream, validate_crcs=True)
                try:
                    ends.append(next(reader.iter_messages(topics=[channel.topic], reverse=reverse))[2])
                except Exception as error:
                    raise SourceError(f"'{self.path}' is damaged: {_line(error)}") from None
            first, last = ends
            self._add(channel, kind, first, last.log_time, count)

    def _scan(self) -> None:
        for channel, schema, message in self._in_file_order(warn=True):
            kind = self._kind(channel, schema)
            if kind is not None:
                self._add(channel, kind, message, message.log_time, 1)

    def _kind(self, channel: Channel, schema: Schema | None) -> str | None:
        name = schema.name if schema is not None else "no type"
        kind = _KINDS.get(name) if channel.message_encoding in _ENCODINGS else None
        if kind is None:
            self.others[channel.topic] = name
        return kind

    def _add(self, channel: Channel, kind: str, first: Message, last_ns: int, count: int) -> None:
        generation = _ENCODINGS[channel.message_encoding]
        found = _Topic(kind, generation, first.data, first.log_time, last_ns, count)
        before = self.topics.setdefault(channel.topic, found)
        if before is not found:
            before.last_ns = max(before.last_ns, found.last_ns)
            before.count += found.count

    def _in_file_order(self, warn: bool = False) -> Iterator[tuple[Channel, Schema | None, Message]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        with self.path.open("rb") as stream:
            records = StreamReader(stream, validate_crcs=True, record_size_limit=self.path.stat().st_size).records
            while True:
                record = self._next(records, stream, warn)
                if record is None:
                    return
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message) and (channel := channels.get(record.channel_id)) is not None:
                    yield channel, schemas.get(channel.schema_id), record

    def _next(self, records: Iterator[McapRecord], stream: IO[bytes], warn: bool) -> McapRecord | None:
        try:
            return next(records, None)
        except InvalidMagic:
            raise
        except Exception as error:  # what stands where the writing stopped may be anything
            if warn:
                why = _line(error)
                _log.warning("'%s' is cut off or damaged before byte %d: %s", self.path, stream.tell(), why)
            return None


class Recording:
    """The images of a recording of one or several files, in order.

    Raises:
        SourceError: none of the files can be read.
    """

    def __init__(self, paths: list[Path], uri: str) -> None:
        self._parts: list[_Part] = []
        problems: list[SourceError] = []
        for path in paths:
            try:
                self._parts.append(_Part(path))
            except SourceError as error:
                problems.append(error)
        if not self._parts:
            raise problems[0] if problems else SourceError(f"'{uri}' holds no MCAP file")
        for problem in problems:
            _log.warning("%s; the other files are played", problem)
        self._serialisers: dict[int, Serialiser] = {}

    @property
    def topics(self) -> list[str]:
        """Those with images, by name."""
        return sorted({topic for part in self._parts for topic in part.topics})

    @property
    def others(self) -> dict[str, str]:
        """Every other topic and its type."""
        return {topic: kind for part in self._parts for topic, kind in part.others.items()}

    def count(self, topic: str) -> int:
        """Messages of a topic."""
        return sum(found.count for found in self._of(topic))

    def span_ns(self, topic: str) -> tuple[int, int]:
        """Log times of the first and last message of a topic."""
        return min(found.first_ns for found in self._of(topic)), max(found.last_ns for found in self._of(topic))

    def problem(self, topic: str) -> str:
        """Why the first image of a topic cannot be decoded, empty when it can."""
        first = self._of(topic)[0]
        try:
            self._decode(first, first.first)
        except DecodeError as error:
            return f"topic {topic}: {error}"
        return ""

    def images(self, topic: str) -> Generator[Picture, None, None]:
        """Every image of a topic.

        Raises:
            SourceError: a file is damaged.
        """
        for part in self._parts:
            if topic not in part.topics:
                continue
            for log_ns, data in part.messages(topic):
                try:
                    stamp_ns, image = self._decode(part.topics[topic], data)
                except DecodeError as error:
                    _log.debug("%s at %d ns: %s", topic, log_ns, error)
                    yield log_ns, log_ns, None
                else:
                    yield log_ns, stamp_ns or log_ns, image

    def _of(self, topic: str) -> list[_Topic]:
        return [part.topics[topic] for part in self._parts if topic in part.topics]

    def _decode(self, topic: _Topic, data: bytes) -> tuple[int, np.ndarray]:
        if topic.generation not in self._serialisers:
            self._serialisers[topic.generation] = Serialiser(topic.generation)
        serialiser = self._serialisers[topic.generation]
        if topic.kind == "compressed":
            compressed = serialiser.decode_compressed(data)
            return compressed.header.stamp_ns, decompress(compressed)
        raw = serialiser.decode_image(data)
        image = to_bgr(raw)
        # A view of the message is read-only, and its rows may be padded.
        return raw.header.stamp_ns, image if image.flags.writeable and image.flags.c_contiguous else image.copy()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
