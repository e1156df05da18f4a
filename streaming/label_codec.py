"""Label maps as bytes: the encodings `rle+zlib`, `raw` and `png` of the wire protocol.

Everything that arrives is untrusted: no declared size is allocated and no stream is inflated before it
has been bounded by what the shape allows.
"""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError

Labels = NDArray[np.uint16]

ENCODINGS = ("rle+zlib", "raw", "png")
MAX_PIXELS = 2**25
"""Largest label map accepted: just above 8K video (7680 x 4320)."""

_ZLIB_LEVEL = 1  # level 6 saves a tenth of the bytes and costs three times the time
_RUN_BYTES = 6  # 2 for the value, 4 for the length
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_LAST_FILTER = 4


class WireError(EngineError, ValueError):
    """A message that does not follow the wire protocol."""


def check_shape(shape: tuple[int, int]) -> None:
    """Raise `WireError` unless `shape` = (h, w) is a label map this engine is willing to hold."""
    h, w = shape
    if h < 1 or w < 1 or h * w > MAX_PIXELS:
        raise WireError(f"label map of {h} x {w} pixels: sides start at 1 and at most {MAX_PIXELS} pixels are accepted")


def encode_labels(labels: NDArray[Any], encoding: str = "rle+zlib") -> bytes:
    """Encode a label map.

    Args:
        labels: uint16 [h, w].
        encoding: one of `ENCODINGS`.

    Raises:
        WireError: wrong dtype, shape or encoding.
    """
    if labels.dtype != np.uint16 or labels.ndim != 2:
        raise WireError(f"label map is {labels.dtype} {labels.shape}: uint16 [h, w] is needed")
    check_shape((labels.shape[0], labels.shape[1]))
    if encoding == "rle+zlib":
        return _encode_rle(labels)
    if encoding == "raw":
        return labels.astype("<u2", copy=False).tobytes()
    if encoding == "png":
        return _encode_png(labels)
    raise WireError(_unknown_encoding(encoding))


def decode_labels(data: bytes, encoding: str, shape: tuple[int, int]) -> Labels:
    """Decode a label map into a new uint16 [h, w] array.

    Raises:
        WireError: anything about `data` that does not fit `encoding` and `shape`.
    """
    check_shape(shape)
    if encoding == "rle+zlib":
        return _decode_rle(data, shape)
    if encoding == "raw":
        _expect_bytes("raw label map", len(data), shape[0] * shape[1] * 2)
        return np.frombuffer(data, "<u2").astype(np.uint16).reshape(shape)
    if encoding == "png":
        return _decode_png(data, shape)
    raise WireError(_unknown_encoding(encoding))


def _unknown_encoding(encoding: str) -> str:
    return f"unknown label encoding {encoding[:40]!r}: one of {', '.join(ENCODINGS)} is needed"


def _expect_bytes(what: str, measured: int, expected: int) -> None:
    if measured != expected:
        raise WireError(f"{what} has {measured} bytes, its shape needs {expected}")


def _encode_rle(labels: NDArray[Any]) -> bytes:
    flat = labels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    return zlib.compress(flat[starts].astype("<u2").tobytes() + lengths.astype("<u4").tobytes(), _ZLIB_LEVEL)


def _decode_rle(data: bytes, shape: tuple[int, int]) -> Labels:
    pixels = shape[0] * shape[1]
    runs = _inflate(data, pixels * _RUN_BYTES, "run-length label map")
    count, rest = divmod(len(runs), _RUN_BYTES)
    if rest or not count:
        raise WireError(f"run-length label map has {len(runs)} bytes, a multiple of {_RUN_BYTES} above 0 is needed")
    values = np.frombuffer(runs, "<u2", count)
    lengths = np.frombuffer(runs, "<u4", count, offset=2 * count).astype(np.int64)
    total = int(lengths.sum())
    if total != pixels or not lengths.all():
        raise WireError(f"runs cover {total} pixels, the shape needs {pixels} in runs of 1 or more")
    return np.repeat(values.astype(np.uint16), lengths).reshape(shape)


def _inflate(data: bytes, limit: int, what: str) -> bytes:
    """Inflate one zlib stream of at most `limit` bytes; what follows it or is missing is an error."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise WireError(f"{what} is not a zlib stream: {error}") from None
    if len(out) > limit:
        raise WireError(f"{what} inflates to more than the {limit} bytes its shape allows")
    if not stream.eof or stream.unused_data:
        raise WireError(f"{what} is cut short or followed by other bytes")
    return out


def _encode_png(labels: NDArray[Any]) -> bytes:
    ok, data = cv2.imencode(".png", np.ascontiguousarray(labels), [cv2.IMWRITE_PNG_COMPRESSION, _ZLIB_LEVEL])
    if not ok:
        raise WireError(f"label map of {labels.shape[0]} x {labels.shape[1]} pixels cannot be written as PNG")
    return data.tobytes()


def _decode_png(data: bytes, shape: tuple[int, int]) -> Labels:
    # OpenCV returns a half-filled image for a damaged file and allocates what the file declares, so the
    # file is checked here and only a known good rest (header, pixels, end) is handed over.
    h, w = shape
    header, pixels = _png_chunks(data)
    if header != struct.pack(">IIBBBBB", w, h, 16, 0, 0, 0, 0):
        raise WireError(f"PNG label map is not a plain 16-bit gray image of {h} x {w} pixels")
    rows = _inflate(pixels, h * (1 + 2 * w), "PNG label map")
    _expect_bytes("PNG label map", len(rows), h * (1 + 2 * w))
    if max(rows[:: 1 + 2 * w]) > _PNG_LAST_FILTER:
        raise WireError(f"PNG label map uses row filter {max(rows[:: 1 + 2 * w])}, PNG knows 0 to {_PNG_LAST_FILTER}")
    clean = _PNG_SIGNATURE + b"".join(
        _png_chunk(name, body) for name, body in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )
    try:
        labels = cv2.imdecode(np.frombuffer(clean, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise WireError(f"PNG label map cannot be read: {error.err}") from None
    if labels is None or labels.dtype != np.uint16 or labels.shape != shape:
        raise WireError(f"PNG label map does not decode to uint16 {h} x {w}")
    return labels.astype(np.uint16, copy=False)


def _png_chunks(data: bytes) -> tuple[bytes, bytes]:
    """The body of IHDR and the joined bodies of IDAT of a PNG file whose checksums are right."""
    if data[:8] != _PNG_SIGNATURE:
        raise WireError("PNG label map does not start with the PNG signature")
    header, pixels, at = b"", [], len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body, end = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], at + 12 + size
        if end > len(data) or data[at:end] != _png_chunk(name, body):
            raise WireError(f"PNG label map is damaged at byte {at}")
        if name == b"IHDR":
            header = body
        elif name == b"IDAT":
            pixels.append(body)
        elif name == b"IEND":
            return header, b"".join(pixels)
        at = end
    raise WireError(f"PNG label map is cut short after {len(data)} bytes")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
