"""A clip at another frame rate: the same pictures, coded as they are, with another clock."""

import struct
from collections.abc import Iterator
from pathlib import Path

from engine.errors import StoreError, UsageError
from streaming.sources import open_source

_HOLDERS = (b"moov", b"trak", b"mdia")
_CLOCKS = (b"mvhd", b"mdhd")
_HEADER_BYTES = 8


def with_rate(clip: str, fps: float, folder: Path) -> str:
    """A copy of an MP4 file in `folder` that plays at `fps`: its time units become shorter, nothing is coded anew.

    Raises:
        UsageError: no MP4 file, or none whose frame rate is known.
        StoreError: it cannot be copied.
        SourceError: it cannot be played.
    """
    path = Path(clip)
    if not path.is_file():
        raise UsageError(f"--fps {fps:g}: {clip} is no file; only MP4 files can be played faster or slower")
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise StoreError(f"--fps: {clip}: {error.strerror or error}") from None
    source = open_source(clip)
    own_fps = source.fps
    source.close()
    places = list(_clocks(content, 0, len(content)))
    if not places or not own_fps:
        raise UsageError(f"--fps {fps:g}: {clip} is no MP4 file with a frame rate; record it as MP4")
    for place in places:
        (units,) = struct.unpack_from(">I", content, place)
        struct.pack_into(">I", content, place, round(units * fps / own_fps))
    copy = folder / path.name
    try:
        copy.write_bytes(content)
    except OSError as error:
        raise StoreError(f"--fps: {copy}: {error.strerror or error}") from None
    return str(copy)


def _clocks(content: bytearray, start: int, end: int) -> Iterator[int]:
    """Where the time units per second of the movie and of its tracks stand (ISO 14496-12, 8.2.2 and 8.4.2)."""
    while start + _HEADER_BYTES <= end:
        size, name = struct.unpack_from(">I4s", content, start)
        body = start + _HEADER_BYTES
        if size == 1 and body + 8 <= end:
            (size,) = struct.unpack_from(">Q", content, body)
            body += 8
        stop = end if size == 0 else start + size
        if stop <= start or stop > end:
            return
        if name in _HOLDERS:
            yield from _clocks(content, body, stop)
        elif name in _CLOCKS:
            # Behind version and flags: times of creation and change, of 8 bytes each from version 1 on.
            place = body + 4 + 2 * (8 if content[body] else 4)
            if place + 4 <= stop:
                yield place
        start = stop
