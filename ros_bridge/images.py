"""`python -m ros_bridge.images TOPIC`: images from a ROS topic as frames on standard output, for `--source ros://`.

A process of its own: the middleware's threads, signal handlers and crashes stay out of the engine. Each frame is a
record header and BGR bytes; only the newest waits while the reader is busy. The end of standard input ends it.

    offset  type       content
    0       4 bytes    FRAM, or FAIL: `length` bytes of UTF-8 follow that say why this is the end
    4       int64      stamp of the image, Unix ns; time of arrival where the header has none
    12      uint32     index of the image, counting those that were not handed on
    16      uint32     images so far that could not be read
    20      uint32 x2  height, width
    28      uint32     length of what follows: height * width * 3
"""

import argparse
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

# Before numpy loads: it would start threads that this process has no use for.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from engine.errors import EngineError
from ros_bridge.__main__ import add_graph_options, domain_id
from ros_bridge.backends import Backend, Options, open_backend
from ros_bridge.topics import SENSOR, check_name
from streaming.ros.cdr import DecodeError, Serialiser
from streaming.ros.definitions import COMPRESSED_IMAGE, IMAGE
from streaming.ros.pixels import decompress, to_bgr

RECORD = struct.Struct("<4sqIIIII")


class ImageReader:
    """Keeps the newest image of a topic until it is taken.

    Args:
        backend: where to subscribe. topic: of sensor_msgs/Image, or CompressedImage if it ends in /compressed.
    """

    def __init__(self, backend: Backend, topic: str) -> None:
        self._serialiser = Serialiser(backend.generation)
        self._compressed = topic.endswith("/compressed")
        self._changed = threading.Condition()
        self._newest: tuple[int, int, bytes] | None = None
        self._received = 0
        self._unreadable = 0
        self.problem = ""
        backend.subscribe(topic, COMPRESSED_IMAGE if self._compressed else IMAGE, SENSOR, self._receive)

    def _receive(self, data: bytes) -> None:
        with self._changed:
            self._newest = (self._received, time.time_ns(), data)
            self._received += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> bytes | None:
        """The next image as a record, None when there is none in time or it cannot be read (see `problem`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, timeout_s)
            newest, self._newest = self._newest, None
        if newest is None:
            return None
        index, arrived_ns, data = newest
        try:
            if self._compressed:
                compressed = self._serialiser.decode_compressed(data)
                stamp_ns, pixels = compressed.header.stamp_ns, decompress(compressed)
            else:
                image = self._serialiser.decode_image(data)
                stamp_ns, pixels = image.header.stamp_ns, to_bgr(image)
        except DecodeError as error:
            self._unreadable += 1
            self.problem = str(error)
            return None
        h, w = pixels.shape[:2]
        head = RECORD.pack(b"FRAM", stamp_ns or arrived_ns, index, self._unreadable, h, w, h * w * 3)
        return head + np.ascontiguousarray(pixels).tobytes()


def failure(text: str) -> bytes:
    """The last record: why there are no more."""
    encoded = text.encode()
    return RECORD.pack(b"FAIL", 0, 0, 0, 0, 0, len(encoded)) + encoded


def pump(reader: ImageReader, out: BinaryIO, stop: threading.Event) -> None:
    """Write records until stopped or nobody reads them; an unreadable first image is the end."""
    frames = 0
    while not stop.is_set():
        record = reader.take(timeout_s=0.2)
        if record is not None:
            frames += 1
        elif reader.problem and not frames:
            record = failure(reader.problem)
            stop.set()
        if record is not None:
            out.write(record)
            out.flush()


def _stop_at_end(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(1024):
        pass
    stop.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until standard input ends; returns the exit code."""
    # Middleware prints what it likes; the records get a descriptor of their own.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    parser = argparse.ArgumentParser(prog="python -m ros_bridge.images", allow_abbrev=False)
    parser.add_argument("topic")
    add_graph_options(parser)
    options = parser.parse_args(argv)
    stop = threading.Event()
    threading.Thread(target=_stop_at_end, args=(stop,), daemon=True).start()
    try:
        graph = Options(
            node=options.node,
            anonymous=True,
            domain=domain_id(options.domain),
            connect=tuple(options.connect),
            listen=tuple(options.listen),
            keys=options.keys,
        )
        backend = open_backend(options.backend, graph)
        try:
            pump(ImageReader(backend, check_name(options.topic, "topic")), out, stop)
        finally:
            backend.close()
    except EngineError as error:
        out.write(failure(str(error)))
        out.flush()
        return error.exit_code
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    # Middleware threads may outlive main; nothing here is worth waiting for them.
    code = main()
    sys.stderr.flush()
    os._exit(code)
