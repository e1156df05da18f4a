"""Scenes and states survive the wire; what does not follow the protocol is refused with one line."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.scene import CommitInfo, Look, Object
from streaming.wire import ModelInfo, WireError, decode, encode_eos, encode_heartbeat, encode_scene
from tests.streaming.scenes import make_object, make_scene, read_by_the_page

IDS = {"session": "abc", "seq": 5}
SCENE_KEYS = {
    "v",
    "kind",
    "source",
    "session",
    "seq",
    "frame",
    "t_capture_ns",
    "t_publish_ns",
    "pts_ns",
    "size",
    "frame_size",
    "objects",
    "commit",
    "look",
    "model",
    "timing_ms",
    "dropped",
    "parts",
}


def with_header(parts: list[bytes], /, **changes) -> list[bytes]:
    """The message with header keys replaced; the value `...` removes one."""
    header = json.loads(parts[1]) | changes
    header = {key: value for key, value in header.items() if value is not ...}
    return [parts[0], json.dumps(header).encode(), *parts[2:]]


@pytest.fixture
def parts() -> list[bytes]:
    return encode_scene(make_scene(3), **IDS)


finite = st.floats(allow_nan=False, allow_infinity=False)
objects = st.builds(
    Object,
    id=st.integers(0, 2**63 - 1),
    label=st.integers(1, 65535),
    score=finite,
    box=st.tuples(*[st.integers(-(2**20), 2**20)] * 4),
    area=st.integers(0, 2**40),
    age=st.integers(0, 2**40),
    novelty=finite,
    foreground=finite,
    uncertainty=finite,
)
looks = st.builds(
    Look,
    id=st.none() | st.integers(0, 2**63 - 1),
    box=st.tuples(*[st.integers(-(2**20), 2**20)] * 4),
    reason=st.sampled_from(["novel", "uncertain", "unexplained"]),
    priority=finite,
)


@settings(deadline=None, max_examples=100)
@given(
    objects=st.lists(objects, max_size=5, unique_by=(lambda item: item.id, lambda item: item.label)),
    source=st.text(st.characters(exclude_characters="/", exclude_categories=["C", "Z"]), min_size=1, max_size=40),
    commit=st.none() | st.builds(CommitInfo, st.booleans(), st.integers(0, 100), finite, st.none() | finite),
    look=st.lists(looks, max_size=5).map(tuple),
    pts_ns=st.none() | st.integers(-(2**62), 2**62),
    timing_ms=st.dictionaries(st.text(max_size=8).filter(str.isprintable), finite, max_size=3),
    kind=st.sampled_from(["provisional", "final"]),
)
def test_a_scene_comes_back_as_it_was_sent(objects, source, commit, look, pts_ns, timing_ms, kind):
    scene = make_scene(9, kind, source, objects=tuple(objects), commit=commit, look=look, pts_ns=pts_ns)
    model = ModelInfo("net", "beef", 2)
    message = decode(encode_scene(scene, **IDS, model=model, timing_ms=timing_ms, dropped={"late": 4}))
    assert (message.kind, message.source, message.session, message.seq) == (kind, source, "abc", 5)
    assert (message.frame, message.t_capture_ns, message.pts_ns) == (9, scene.t_capture_ns, pts_ns)
    assert message.look == look
    assert message.size == message.frame_size == (6, 8)
    assert message.objects == scene.objects
    assert message.commit == commit
    assert message.model == model
    assert message.timing_ms == timing_ms
    assert message.dropped == {"late": 4}
    np.testing.assert_array_equal(message.labels, scene.labels)


def test_the_header_has_exactly_the_keys_of_the_protocol(parts):
    header = json.loads(parts[1])
    assert set(header) == SCENE_KEYS
    assert set(header["objects"][0]) == {
        "id",
        "label",
        "score",
        "box",
        "area",
        "age",
        "novelty",
        "foreground",
        "uncertainty",
    }
    assert set(header["commit"]) == {"exact", "lag", "loss_bound", "margin"}
    assert set(header["model"]) == {"name", "hash", "generation"}
    assert header["parts"] == [{"name": "labels", "encoding": "rle+zlib", "dtype": "<u2", "shape": [6, 8]}]
    assert parts[0] == b"masks/cam/final/"


def test_a_reader_written_from_the_page_alone_reads_the_masks():
    rng = np.random.default_rng(0)
    scene = make_scene(1, labels=rng.integers(0, 3, (40, 50)).astype(np.uint16))
    header, labels = read_by_the_page(encode_scene(scene, **IDS))
    np.testing.assert_array_equal(labels, scene.labels)
    assert header["frame"] == 1


def test_numpy_scalars_from_a_detector_become_plain_numbers():
    item = make_object(np.int64(4), np.uint16(2), score=np.float32(0.5), box=tuple(np.arange(4)), area=np.int32(9))
    message = decode(encode_scene(make_scene(np.int64(2), objects=(item,)), **IDS))
    assert message.objects == (make_object(4, 2, score=0.5, box=(0, 1, 2, 3), area=9),)


def test_masks_are_found_by_id():
    scene = make_scene(0, objects=(make_object(70000, 1),))
    message = decode(encode_scene(scene, **IDS))
    mask = message.mask(70000)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, scene.labels == 1)
    with pytest.raises(KeyError):
        message.mask(1)


def test_an_empty_scene_is_an_answer():
    message = decode(encode_scene(make_scene(0, objects=(), labels=np.zeros((4, 5), np.uint16)), **IDS))
    assert message.objects == ()
    assert not message.labels.any()


def test_publish_time_is_now_unless_given(parts):
    before = time.time_ns()
    message = decode(encode_scene(make_scene(), **IDS))
    assert before <= message.t_publish_ns <= time.time_ns()
    assert decode(encode_scene(make_scene(), **IDS, t_publish_ns=12)).t_publish_ns == 12


@pytest.mark.parametrize("state", ["live", "stalled", "reconnecting", "ended"])
def test_heartbeats_carry_the_state_of_a_source(state):
    parts = encode_heartbeat("cam", state, **IDS)
    assert parts[0] == b"state/cam/"
    message = decode(parts)
    assert (message.kind, message.state, message.seq) == ("heartbeat", state, 5)
    with pytest.raises(WireError, match="no label map"):
        _ = message.labels


def test_the_end_of_a_stream_travels_on_the_state_topic():
    parts = encode_eos("cam", **IDS)
    assert parts[0] == b"state/cam/"
    assert (decode(parts).kind, decode(parts).state) == ("eos", "ended")


def test_unknown_states_are_not_sent():
    with pytest.raises(WireError, match=r"'asleep'.*live, stalled, reconnecting, ended"):
        encode_heartbeat("cam", "asleep", **IDS)


@pytest.mark.parametrize("source", ["", "a/b", "a\nb", "a\x00", "a\x7f", "\ud800", "x" * 201, "\u2028"])
def test_source_names_that_would_break_a_topic_are_refused(source):
    with pytest.raises(WireError, match="source name"):
        encode_scene(make_scene(source=source), **IDS)
    with pytest.raises(WireError, match="source name"):
        encode_eos(source, **IDS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_are_not_finite_never_go_on_the_wire(value):
    scene = make_scene()
    for broken in (
        replace(scene, objects=(make_object(score=value),)),
        replace(scene, objects=(make_object(novelty=value),)),
        replace(scene, commit=CommitInfo(True, 1, value)),
    ):
        with pytest.raises(WireError, match="final of source 'cam' cannot be sent"):
            encode_scene(broken, **IDS)
    with pytest.raises(WireError, match="cannot be sent"):
        encode_scene(scene, **IDS, timing_ms={"select": value})


def test_unknown_keys_and_parts_are_ignored(parts):
    described = json.loads(parts[1])["parts"]
    more = with_header(parts, parts=[{"name": "depth"}, *described, {"name": "flow"}], novel={"x": [1, None]})
    message = decode([*more[:2], b"depth bytes", more[2], b"flow bytes", b"never described"])
    np.testing.assert_array_equal(message.labels, decode(parts).labels)


def test_a_newer_protocol_is_refused_with_both_versions(parts):
    with pytest.raises(WireError, match="protocol version 2, this reader knows 1: update the reader"):
        decode(with_header(parts, v=2))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"v": 0}, "'v' is 0"),
        ({"v": True}, "'v' is True"),
        ({"v": ...}, "no 'v'"),
        ({"kind": "video"}, "unknown message kind 'video'"),
        ({"kind": []}, "'kind' is a list, a string is needed"),
        ({"kind": "heartbeat"}, "no 'state'"),
        ({"kind": "heartbeat", "state": "asleep"}, "unknown source state 'asleep'"),
        ({"source": "other"}, "came on topic"),
        ({"source": "a/b"}, "source name"),
        ({"source": "\ud800"}, "source name"),
        ({"session": 5}, "'session' is 5"),
        ({"seq": -1}, "'seq' is -1"),
        ({"seq": 2**63}, "'seq'"),
        ({"frame": 1.5}, "'frame' is 1.5"),
        ({"frame": ...}, "no 'frame'"),
        ({"t_capture_ns": None}, "'t_capture_ns' is None"),
        ({"pts_ns": "0"}, "'pts_ns' is '0'"),
        ({"size": [6]}, "'size'"),
        ({"size": [6, 0]}, "'size'"),
        ({"size": [8, 6]}, "labels are declared"),
        ({"size": [10**6, 10**6]}, "at most"),
        ({"frame_size": [6, 8.0]}, "'frame_size'"),
        ({"objects": {}}, "'objects' is a dict"),
        ({"objects": [1]}, "'objects'"),
        ({"objects": [{}]}, r"objects\[0\] has no 'box'"),
        ({"commit": [1]}, "'commit'"),
        ({"commit": {"exact": 1, "lag": 0, "loss_bound": 0}}, "commit: 'exact' is 1"),
        ({"model": {"name": "m"}}, "model has no 'hash'"),
        ({"timing_ms": {"a": "b"}}, "'timing_ms'"),
        ({"timing_ms": {"a": math.nan}}, "NaN"),
        ({"timing_ms": {"a": -math.inf}}, "-Infinity"),
        ({"dropped": {"a": 0.5}}, "'dropped'"),
        ({"parts": []}, "no part named 'labels'"),
        ({"parts": [{"name": "labels"}]}, "no 'dtype'"),
        ({"parts": [{"name": "labels", "dtype": "<u4", "shape": [6, 8]}]}, "'<u4'"),
        ({"parts": [{"name": "labels", "dtype": "<u2", "shape": [6, 9]}]}, "labels are declared"),
        ({"parts": [{"name": "labels", "dtype": "<u2", "shape": [6, 8], "encoding": "gif"}]}, "'gif'"),
        ({"parts": [{"name": "x"}, {"name": "labels", "dtype": "<u2", "shape": [6, 8]}]}, "buffer 1"),
    ],
)
def test_headers_that_break_the_protocol_are_refused_by_key(parts, changes, complaint):
    with pytest.raises(WireError, match=complaint) as caught:
        decode(with_header(parts, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"label": 0}, "'label' is 0"),
        ({"label": 65536}, "'label'"),
        ({"score": None}, "'score'"),
        ({"box": [0, 0, 1]}, "'box'"),
        ({"id": "7"}, "'id'"),
    ],
)
def test_objects_that_break_the_protocol_are_refused(parts, changes, complaint):
    item = json.loads(parts[1])["objects"][0] | changes
    with pytest.raises(WireError, match=complaint):
        decode(with_header(parts, objects=[item]))


def test_objects_must_be_distinguishable(parts):
    item = json.loads(parts[1])["objects"][0]
    with pytest.raises(WireError, match="share an id or a label"):
        decode(with_header(parts, objects=[item, item | {"label": 2}]))
    with pytest.raises(WireError, match="share an id or a label"):
        decode(with_header(parts, objects=[item, item | {"id": 8}]))


@pytest.mark.parametrize(
    "header",
    [b"", b"\xff\xfe", b"[]", b"7", b"{", b'{"v":1e999}', b'{"v":' + b"9" * 5000 + b"}", b"[" * 100_000],
)
def test_headers_that_are_no_json_object_are_refused(parts, header):
    with pytest.raises(WireError):
        decode([parts[0], header, parts[2]])


def test_huge_headers_are_refused_unread(parts):
    with pytest.raises(WireError, match="at most"):
        decode([parts[0], b" " * (2**23 + 1), parts[2]])


@pytest.mark.parametrize("count", [0, 1, 65])
def test_messages_of_too_few_or_too_many_parts_are_refused(parts, count):
    with pytest.raises(WireError, match=f"message has {count} parts"):
        decode((parts + [b""] * 65)[:count])


def test_a_lazy_reader_finds_damaged_labels_on_first_use(parts):
    damaged = [*parts[:2], parts[2][:-2]]
    with pytest.raises(WireError, match="cut short"):
        decode(damaged)
    message = decode(damaged, lazy=True)
    with pytest.raises(WireError, match="cut short"):
        _ = message.labels


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
EXAMPLE = encode_scene(make_scene(3), **IDS)


def read_or_refuse(parts: list[bytes]) -> None:
    try:
        message = decode(parts)
    except WireError:
        return
    if message.encoding:
        assert message.labels.shape == message.size


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_parts_never_do_more_than_raise_a_wire_error(parts):
    read_or_refuse(parts)


@settings(deadline=None, max_examples=400)
@given(key=st.sampled_from(sorted(SCENE_KEYS | {"state"})), value=json_values)
def test_random_header_values_never_do_more_than_raise_a_wire_error(key, value):
    read_or_refuse(with_header(EXAMPLE, **{key: value}))


NESTED_KEYS = [
    *(("objects", key) for key in ("id", "label", "box", "score")),
    *(("parts", key) for key in ("name", "encoding", "dtype", "shape")),
]


@settings(deadline=None, max_examples=300)
@given(value=json_values, path=st.sampled_from(NESTED_KEYS))
def test_random_values_inside_lists_never_do_more_than_raise_a_wire_error(value, path):
    items = json.loads(EXAMPLE[1])[path[0]]
    items[0][path[1]] = value
    read_or_refuse(with_header(EXAMPLE, **{path[0]: items}))


@settings(deadline=None, max_examples=300)
@given(part=st.integers(0, 2), cut=st.integers(0, 900), flip=st.integers(0, 255), keep=st.booleans())
def test_damaged_messages_never_do_more_than_raise_a_wire_error(part, cut, flip, keep):
    damaged = list(EXAMPLE)
    data = bytearray(damaged[part])
    cut %= len(data)
    data[cut] ^= flip
    damaged[part] = bytes(data) if keep else bytes(data[:cut])
    read_or_refuse(damaged)
