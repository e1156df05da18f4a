"""The bytes on the wire are those of the golden files: a change of the protocol does not go unnoticed."""

import json
import zlib
from dataclasses import asdict

import numpy as np
import pytest

from streaming.wire import WireError, decode
from tests.golden.make_golden import FOLDER, golden_messages, unpack

NAMES = sorted(path.stem for path in FOLDER.glob("*.msg"))


def stored(name: str) -> tuple[list[bytes], dict]:
    parts = unpack((FOLDER / f"{name}.msg").read_bytes())
    return parts, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_golden_message_is_stored_and_no_other():
    assert sorted(golden_messages()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_golden_messages_are_read_as_expected(name):
    parts, expected = stored(name)
    if "error" in expected:
        with pytest.raises(WireError, match=expected["error"]):
            decode(parts)
        return
    message = decode(parts)
    assert message.topic == expected.pop("topic").encode()
    if "labels" in expected:
        np.testing.assert_array_equal(message.labels, np.array(expected.pop("labels"), np.uint16))
    found = json.loads(json.dumps(asdict(message), default=lambda value: None))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("path", sorted((FOLDER / "earlier").glob("*.msg")), ids=lambda path: path.stem)
def test_messages_of_earlier_senders_stay_readable(path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    message = decode(unpack(path.read_bytes()))
    assert message.topic == expected.pop("topic").encode()
    np.testing.assert_array_equal(message.labels, np.array(expected.pop("labels"), np.uint16))
    found = json.loads(json.dumps(asdict(message), default=lambda value: None))
    # What came later has a neutral value.
    assert [item.pop("uncertainty") for item in found["objects"]] == [0.0] * len(found["objects"])
    assert found["look"] == []
    if found["commit"] is not None:
        assert found["commit"].pop("margin") is None
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_code_still_writes_the_golden_bytes(name):
    parts, expected = stored(name)
    now = golden_messages()[name]
    assert json.loads(json.dumps(now.expected)) == expected
    assert now.parts[:2] == parts[:2]
    assert len(now.parts) == len(parts)
    if expected.get("encoding") == "rle+zlib" and name != "unknown_key_and_part":
        # Compressed bytes may differ between builds of zlib; what they stand for may not.
        assert zlib.decompress(now.parts[2]) == zlib.decompress(parts[2])
    if expected.get("encoding") == "raw":
        assert now.parts[2] == parts[2]
