"""An MCAP file that grows chunk by chunk and is readable up to the last one, whatever happens to the process."""

import logging
import os
import time
from pathlib import Path
from typing import BinaryIO, cast

from mcap.writer import CompressionType, Writer

from engine.errors import StoreError
from streaming.sinks.new_file import new_file

_log = logging.getLogger("unseen.mcap")

_CHUNK_BYTES = 4 * 1024 * 1024
"""Uncompressed: six 480p label maps with their pictures. Larger chunks compress no better."""
_FLUSH_EVERY_S = 1.0
"""A process that is killed loses the messages of so long."""
_RETRY_EVERY_S = 1.0


class _Tail:
    """The end of the file the disk has yet to take; a stream for `mcap.writer.Writer`.

    The writer believes that everything it wrote is in the file. That stays true as long as nothing is added while
    something waits here, so a disk that was full costs messages but never the file.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._written = 0
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def tell(self) -> int:
        return self._written + len(self.waiting)

    def flush(self) -> None:
        """The writer's wish; `commit` decides."""

    def commit(self) -> None:
        """Hand everything to the operating system, or leave the file as it was.

        Raises:
            OSError: no room, or the disk failed.
        """
        done = 0
        try:
            while done < len(self.waiting):
                done += self._file.write(memoryview(self.waiting)[done:]) or 0
        except OSError:
            # Half a chunk at the end would stop readers that could otherwise go on behind it.
            os.ftruncate(self._file.fileno(), self._written)
            self._file.seek(self._written)
            raise
        self._written += done
        self.waiting = bytearray()

    def close(self) -> None:
        self._file.close()


class McapFile:
    """Messages of any number of topics in one indexed, compressed file of profile `ros2`.

    When the disk fails, messages are lost until it takes what waits; both are logged once. Not for several threads.

    Args:
        path: see `new_file`.

    Attributes:
        path: of the file that is written.
        lost: how often `ready` said no.

    Raises:
        UsageError, StoreError: see `new_file`; or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = new_file("--mcap", path, ".mcap")
        try:
            self._tail = _Tail(self.path)
        except OSError as error:
            raise StoreError(f"--mcap {self.path}: {error.strerror or error}") from None
        self._writer = Writer(cast(BinaryIO, self._tail), chunk_size=_CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="unseen-engine")
        self._schemas: dict[str, int] = {}
        self._flushed_s = time.monotonic()
        self._failed_s: float | None = None
        self.lost = 0
        self._commit()

    def add_channel(self, topic: str, type_name: str, definition: str, qos: str) -> int:
        """A topic of its own; returns its number.

        Args:
            type_name: e.g. `sensor_msgs/msg/Image`. definition: its text and that of every type it is made of.
            qos: the publisher's quality of service, as rosbag2 writes it (YAML).
        """
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(type_name, "ros2msg", definition.encode())
        metadata = {"offered_qos_profiles": qos}
        return self._writer.register_channel(topic, "cdr", self._schemas[type_name], metadata)

    def ready(self) -> bool:
        """Whether `write` may be called; False while the disk fails, and then what was to be written is lost."""
        if self._failed_s is not None and time.monotonic() - self._failed_s >= _RETRY_EVERY_S:
            self._commit()
        self.lost += self._failed_s is not None
        return self._failed_s is None

    def write(self, channel: int, t_ns: int, sequence: int, data: bytes) -> None:
        """Append a message; only where `ready`.

        Args:
            t_ns: Unix time it belongs to, here the time of capture. sequence: frame index.
        """
        self._writer.add_message(channel, log_time=t_ns, publish_time=t_ns, sequence=sequence & 0xFFFFFFFF, data=data)
        now_s = time.monotonic()
        if now_s - self._flushed_s >= _FLUSH_EVERY_S:
            self._writer.flush()
        if self._tail.waiting:
            self._flushed_s = now_s
            self._commit()

    def close(self) -> None:
        """Write the index and end the file; on a full disk it stays without, and readers go through it in order."""
        self._writer.finish()
        self._commit()
        if self._failed_s is not None:
            _log.warning("%s has no index (%d frames and scenes lost); `mcap recover` makes one", self.path, self.lost)
        self._tail.close()

    def _commit(self) -> None:
        failed_before = self._failed_s is not None
        try:
            self._tail.commit()
        except OSError as error:
            self._failed_s = time.monotonic()
            if not failed_before:
                why = error.strerror or str(error)
                _log.warning("%s: %s; recording waits until there is room, the engine goes on", self.path, why)
        else:
            self._failed_s = None
            if failed_before:
                _log.warning("%s: recording goes on, %d frames and scenes lost", self.path, self.lost)
