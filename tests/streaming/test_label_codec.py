"""Label maps survive every encoding; damaged or lying bytes are refused without harm."""

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.errors import EngineError
from streaming.label_codec import ENCODINGS, MAX_PIXELS, WireError, decode_labels, encode_labels

LABEL_MAPS = arrays.arrays(
    np.uint16,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 255, 256, 65535]),
)


def slow_runs(labels: np.ndarray) -> bytes:
    """Values, then lengths, of row-major runs: one pixel at a time."""
    runs: list[list[int]] = []
    for pixel in labels.ravel().tolist():
        if runs and runs[-1][0] == pixel:
            runs[-1][1] += 1
        else:
            runs.append([pixel, 1])
    values, lengths = zip(*runs, strict=True)
    return struct.pack(f"<{len(runs)}H", *values) + struct.pack(f"<{len(runs)}I", *lengths)


def rle(values: list[int], lengths: list[int]) -> bytes:
    return zlib.compress(struct.pack(f"<{len(values)}H", *values) + struct.pack(f"<{len(lengths)}I", *lengths))


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=100)
@given(labels=LABEL_MAPS)
def test_what_goes_in_comes_out(encoding, labels):
    decoded = decode_labels(encode_labels(labels, encoding), encoding, labels.shape)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, labels)


@settings(deadline=None, max_examples=200)
@given(labels=LABEL_MAPS)
def test_fast_run_lengths_equal_the_slow_reference(labels):
    assert zlib.decompress(encode_labels(labels)) == slow_runs(labels)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_views_that_are_not_contiguous_are_read_in_row_major_order(encoding):
    whole = np.arange(48, dtype=np.uint16).reshape(6, 8) // 5
    for view in (whole.T, whole[::2, 1::3], whole[::-1]):
        np.testing.assert_array_equal(decode_labels(encode_labels(view, encoding), encoding, view.shape), view)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoded_labels_may_be_written_to(encoding):
    labels = np.ones((3, 4), np.uint16)
    decoded = decode_labels(encode_labels(labels, encoding), encoding, (3, 4))
    decoded[0, 0] = 9
    assert decoded[0, 0] == 9


def test_raw_is_little_endian_row_major():
    assert encode_labels(np.array([[1, 258]], np.uint16), "raw") == b"\x01\x00\x02\x01"


@pytest.mark.parametrize("labels", [np.zeros((2, 2), np.int32), np.zeros(4, np.uint16), np.zeros((0, 3), np.uint16)])
def test_only_uint16_maps_are_encoded(labels):
    with pytest.raises(WireError):
        encode_labels(labels)


def test_unknown_encodings_are_named_with_the_known_ones():
    with pytest.raises(WireError, match=r"'jpeg'.*rle\+zlib, raw, png"):
        encode_labels(np.zeros((2, 2), np.uint16), "jpeg")
    with pytest.raises(WireError, match="'jpeg'"):
        decode_labels(b"", "jpeg", (2, 2))


def test_a_wire_error_is_both_a_value_error_and_an_engine_error():
    assert issubclass(WireError, ValueError)
    assert issubclass(WireError, EngineError)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "cut short"),
        (b"not zlib at all", "not a zlib stream"),
        (rle([1], [4])[:-3], "cut short"),
        (rle([1], [4]) + b"x", "followed by other bytes"),
        (zlib.compress(b""), "0 bytes"),
        (zlib.compress(b"12345"), "5 bytes"),
        (rle([1], [3]), "cover 3 pixels"),
        (rle([1], [5]), "cover 5 pixels"),
        (rle([1, 2], [4, 0]), "runs of 1 or more"),
        (rle([1, 2], [2**32 - 1, 5]), "cover 4294967300 pixels"),
        (rle([1, 2, 3, 4, 5], [1, 1, 1, 1, 0]), "more than the 24 bytes"),
    ],
)
def test_wrong_run_lengths_are_refused(data, complaint):
    with pytest.raises(WireError, match=complaint):
        decode_labels(data, "rle+zlib", (2, 2))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (-2, -2), (10**6, 10**6), (MAX_PIXELS + 1, 1)])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_impossible_shapes_are_refused_before_anything_is_allocated(encoding, shape):
    with pytest.raises(WireError, match="label map of"):
        decode_labels(encode_labels(np.ones((2, 2), np.uint16), encoding), encoding, shape)


def test_a_zlib_bomb_is_not_inflated():
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="more than"):
            decode_labels(bomb, "rle+zlib", (4, 4))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20


def test_raw_of_another_size_is_refused():
    with pytest.raises(WireError, match="has 7 bytes, its shape needs 8"):
        decode_labels(bytes(7), "raw", (2, 2))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.uint16), np.zeros((5, 4), np.uint16)],
    ids=["8 bit", "colour", "other size"],
)
def test_png_images_that_are_no_such_label_map_are_refused(image):
    with pytest.raises(WireError, match="plain 16-bit gray"):
        decode_labels(cv2.imencode(".png", image)[1].tobytes(), "png", (4, 5))


def test_every_damaged_png_is_refused():
    labels = np.arange(20, dtype=np.uint16).reshape(4, 5) * 1000
    data = encode_labels(labels, "png")
    for at in range(len(data)):
        with pytest.raises(WireError):
            decode_labels(data[:at], "png", (4, 5))
        flipped = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        with pytest.raises(WireError):
            decode_labels(flipped, "png", (4, 5))


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (bytes(4 * 11 - 1), "has 43 bytes"),
        (bytes(10**6), "more than the 44 bytes"),
        ((b"\x09" + bytes(10)) * 4, "row filter"),
    ],
    ids=["too few rows", "bomb", "unknown filter"],
)
def test_png_files_with_right_checksums_but_wrong_content_are_refused(rows, complaint):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with pytest.raises(WireError, match=complaint):
        decode_labels(data, "png", (4, 5))


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200), labels=LABEL_MAPS, cut=st.integers(0, 200))
def test_random_bytes_give_a_map_of_the_declared_shape_or_a_wire_error(encoding, data, labels, cut):
    for candidate in (data, encode_labels(labels, encoding)[:cut] + data):
        try:
            decoded = decode_labels(candidate, encoding, labels.shape)
        except WireError:
            continue
        assert decoded.shape == labels.shape
        assert decoded.dtype == np.uint16
