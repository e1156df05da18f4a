"""The publisher: never in the engine's way, never silent about a loss, and friendly to newcomers."""

import json
import logging
import math
import stat
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import zmq

import streaming.publisher
from engine.errors import EngineError, UsageError
from streaming.endpoint import is_loopback
from streaming.outbox import Outbox
from streaming.publisher import Publisher
from streaming.subscriber import MaskSubscriber
from streaming.wire import ModelInfo, WireError, decode
from tests.streaming.scenes import eventually, make_object, make_scene, read_by_the_page

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def publisher():
    # Patience far above what a busy machine needs: only tests of losses may lose messages.
    with Publisher(ANY_PORT, queue_size=64, patience_ms=20_000) as publisher:
        yield publisher


@contextmanager
def raw_subscriber(endpoint: str, *prefixes: bytes, hwm: int = 1000):
    """A plain SUB socket; receiving fails after a minute instead of hanging."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set_hwm(hwm)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    for prefix in prefixes:
        socket.setsockopt(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        context.destroy(linger=0)


@pytest.fixture
def encoded(monkeypatch) -> list:
    """Scenes encoded so far."""
    scenes = []
    encode_scene = streaming.publisher.encode_scene

    def counting(scene, **kwargs):
        scenes.append(scene)
        return encode_scene(scene, **kwargs)

    monkeypatch.setattr(streaming.publisher, "encode_scene", counting)
    return scenes


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_plain_subscriber_reads_the_masks_that_were_published(transport, tmp_path):
    endpoint = ANY_PORT if transport == "tcp" else f"ipc://{tmp_path}/masks"
    rng = np.random.default_rng(1)
    maps = [rng.integers(0, 4, (30, 40)).astype(np.uint16) for _ in range(20)]
    with (
        Publisher(endpoint, queue_size=64, send_hwm=64) as publisher,
        raw_subscriber(publisher.endpoint, b"masks/cam/final/") as socket,
    ):
        assert publisher.wait_for_subscriber(60)
        for frame, labels in enumerate(maps):
            publisher.publish(make_scene(frame, labels=labels), timing_ms={"select": 1.5}, dropped={"late": 3})
        for frame, labels in enumerate(maps):
            parts = socket.recv_multipart()
            header, found = read_by_the_page(parts)
            assert parts[0] == b"masks/cam/final/"
            assert (header["frame"], header["seq"], header["session"]) == (frame, frame, publisher.session)
            assert (header["timing_ms"], header["dropped"]) == ({"select": 1.5}, {"late": 3})
            np.testing.assert_array_equal(found, labels)


def test_nothing_is_encoded_while_nobody_subscribes(publisher, encoded):
    for frame in range(20):
        publisher.publish(make_scene(frame))
    assert eventually(lambda: publisher.waiting == 0)
    with raw_subscriber(publisher.endpoint, b"masks/cam/final/") as socket:
        assert decode(socket.recv_multipart()).frame == 19
    assert [scene.frame_index for scene in encoded] == [19]


def test_topics_nobody_subscribed_to_are_not_encoded(publisher, encoded):
    with raw_subscriber(publisher.endpoint, b"masks/cam/final/") as socket:
        assert publisher.wait_for_subscriber(60)
        for frame in range(5):
            publisher.publish(make_scene(frame, "provisional"))
            publisher.publish(make_scene(frame, source="cam10"))
            publisher.publish(make_scene(frame))
            assert decode(socket.recv_multipart()).frame == frame
    assert {(scene.kind, scene.source) for scene in encoded} == {("final", "cam")}


def test_encoding_stops_when_the_last_subscriber_leaves(publisher, encoded):
    with raw_subscriber(publisher.endpoint, b"masks/") as socket:
        assert publisher.wait_for_subscriber(60)
        publisher.publish(make_scene(0))
        socket.recv_multipart()

    def published_without_encoding() -> bool:
        before = len(encoded)
        publisher.publish(make_scene(1))
        eventually(lambda: len(encoded) > before, 0.05)
        return len(encoded) == before

    assert eventually(published_without_encoding)


def test_a_newcomer_gets_the_last_message_of_every_topic_at_once(publisher):
    for frame in range(3):
        publisher.publish(make_scene(frame, "provisional"))
    publisher.publish(make_scene(1))
    publisher.eos("gone")
    assert eventually(lambda: publisher.waiting == 0)
    with raw_subscriber(publisher.endpoint, b"") as socket:
        found = [decode(socket.recv_multipart()) for _ in range(4)]
    assert {(message.topic, message.frame) for message in found[:2]} == {
        (b"masks/cam/provisional/", 2),
        (b"masks/cam/final/", 1),
    }
    # States after scenes and ends last, or a reader would stop too early.
    assert [(message.source, message.state) for message in found[2:]] == [("cam", "live"), ("gone", "ended")]


def test_a_burst_for_a_newcomer_is_larger_than_the_send_queue_and_still_complete():
    with Publisher(ANY_PORT, send_hwm=1, patience_ms=20_000) as publisher:
        for camera in range(30):
            publisher.publish(make_scene(camera, source=f"cam{camera}"))
        assert eventually(lambda: publisher.waiting == 0)
        with raw_subscriber(publisher.endpoint, b"masks/") as socket:
            found = {decode(socket.recv_multipart()).source for _ in range(30)}
        assert len(found) == 30
        assert publisher.dropped == {}


def test_those_already_there_do_not_see_the_newcomers_copy_twice(publisher):
    with MaskSubscriber(publisher.endpoint, every=True) as first:
        assert publisher.wait_for_subscriber(60)
        publisher.publish(make_scene(0))
        assert first.read(60).frame == 0
        for _ in range(3):
            with raw_subscriber(publisher.endpoint, b"masks/") as late:
                assert decode(late.recv_multipart()).frame == 0
        publisher.publish(make_scene(1))
        assert first.read(60).frame == 1
        assert first.missed == 0


def test_seq_counts_per_topic_and_the_session_is_new_per_start(publisher):
    with raw_subscriber(publisher.endpoint, b"masks/") as socket:
        assert publisher.wait_for_subscriber(60)
        expected = []
        for frame, kind in enumerate(["final", "provisional", "final", "final", "provisional"]):
            publisher.publish(make_scene(frame, kind))
            message = decode(socket.recv_multipart())
            assert message.session == publisher.session
            expected.append(message.seq)
    assert expected == [0, 0, 1, 2, 1]
    with Publisher(ANY_PORT) as other:
        assert other.session != publisher.session


def test_a_replaced_model_is_told_with_the_next_scene(publisher):
    with MaskSubscriber(publisher.endpoint, every=True) as masks:
        publisher.model = ModelInfo("a", "1", 0)
        publisher.publish(make_scene(0))
        publisher.model = ModelInfo("b", "2", 1)
        publisher.publish(make_scene(1))
        # The subscriber may join after the first; the last one is certain.
        while (message := masks.read(60)).frame != 1:
            assert message.model == ModelInfo("a", "1", 0)
        assert message.model == ModelInfo("b", "2", 1)


def test_a_new_state_is_told_at_once_and_once(publisher, monkeypatch):
    monkeypatch.setattr(streaming.publisher, "HEARTBEAT_S", 3600.0)
    with raw_subscriber(publisher.endpoint, b"state/") as socket:
        for source, state in (("a", "live"), ("b", "stalled"), ("a", "live"), ("a", "reconnecting"), ("b", "live")):
            publisher.set_state(source, state)
        found = []
        while not found or found[-1] != ("b", "live"):
            message = decode(socket.recv_multipart())
            found.append((message.source, message.state))
    # Who subscribes late gets the newest ones; nothing is told twice to those who are there.
    told = [("a", "live"), ("b", "stalled"), ("a", "reconnecting"), ("b", "live")]
    assert found == [item for item in told if item in found]


def test_every_state_is_told_again_and_again(publisher, monkeypatch):
    monkeypatch.setattr(streaming.publisher, "HEARTBEAT_S", 0.05)
    publisher.set_state("a", "reconnecting")
    publisher.set_state("b", "stalled")
    beats = {"a": [], "b": []}
    with raw_subscriber(publisher.endpoint, b"state/") as socket:
        while min(len(told) for told in beats.values()) < 4:
            message = decode(socket.recv_multipart())
            beats[message.source].append(message)
    for source, state in (("a", "reconnecting"), ("b", "stalled")):
        assert {message.state for message in beats[source]} == {state}
        seqs = [message.seq for message in beats[source]]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_the_end_follows_the_last_scene_and_is_repeated_for_late_ones(publisher):
    publisher.publish(make_scene(0))
    publisher.eos("cam")
    publisher.set_state("cam", "ended")
    assert eventually(lambda: publisher.waiting == 0)
    with raw_subscriber(publisher.endpoint, b"") as socket:
        kinds = [decode(socket.recv_multipart()).kind for _ in range(3)]
    assert kinds == ["final", "eos", "eos"]


def test_a_source_that_publishes_again_is_live_again(publisher):
    publisher.eos("cam")
    publisher.publish(make_scene(0))
    with MaskSubscriber(publisher.endpoint) as masks:
        assert masks.read(60).frame == 0
        assert eventually(lambda: masks.state("cam") == "live")


def test_closing_sends_what_waits_first():
    publisher = Publisher(ANY_PORT, queue_size=300, patience_ms=20_000)
    with raw_subscriber(publisher.endpoint, b"") as socket:
        assert publisher.wait_for_subscriber(60)
        for frame in range(300):
            publisher.publish(make_scene(frame))
        publisher.eos("cam")
        publisher.close(timeout_s=60)
        found = []
        while not found or found[-1].kind != "eos":
            found.append(decode(socket.recv_multipart()))
    assert [message.frame for message in found if message.kind == "final"] == list(range(300))
    with pytest.raises(EngineError, match="is closed"):
        publisher.publish(make_scene(0))
    publisher.close()


def test_closing_waits_for_what_a_slow_subscriber_has_not_taken_yet():
    """33 MB for a subscriber that starts to read when closing has begun: more than all buffers on the way."""
    count, labels = 40, np.zeros((480, 854), np.uint16)
    publisher = Publisher(ANY_PORT, queue_size=count, send_hwm=count, encoding="raw")
    with raw_subscriber(publisher.endpoint, b"masks/", hwm=1) as socket:
        assert publisher.wait_for_subscriber(60)
        for frame in range(count):
            publisher.publish(make_scene(frame, labels=labels))
        assert eventually(lambda: publisher.waiting == 0)
        closing = threading.Thread(target=publisher.close, kwargs={"timeout_s": 60})
        closing.start()
        assert [decode(socket.recv_multipart()).frame for _ in range(count)] == list(range(count))
        closing.join(60)
        assert not closing.is_alive()


def test_a_subscriber_that_never_reads_delays_neither_publish_nor_close():
    labels = np.random.default_rng(2).integers(0, 2**16, (480, 854)).astype(np.uint16)
    publisher = Publisher(ANY_PORT, encoding="raw", patience_ms=1500)
    with raw_subscriber(publisher.endpoint, b"masks/stuck/", hwm=1):
        assert publisher.wait_for_subscriber(60)
        give_up_s = time.monotonic() + 60
        while "slow_subscriber" not in publisher.dropped:
            assert time.monotonic() < give_up_s
            publisher.publish(make_scene(0, source="stuck", labels=labels))
        # While the publisher thread waited for the subscriber, publish made room instead of waiting too.
        assert publisher.dropped["queue"] > 0
        closing = threading.Thread(target=publisher.close, kwargs={"timeout_s": 0.3})
        closing.start()
        closing.join(60)
        assert not closing.is_alive()


def test_a_subscriber_that_never_reads_takes_nothing_from_the_others():
    labels = np.random.default_rng(2).integers(0, 2**16, (480, 854)).astype(np.uint16)
    with (
        Publisher(ANY_PORT, encoding="raw", send_hwm=8) as publisher,
        raw_subscriber(publisher.endpoint, b"masks/", hwm=1),
        MaskSubscriber(publisher.endpoint, every=True) as masks,
    ):
        publisher.publish(make_scene(0, labels=labels))
        assert masks.read(60).frame == 0
        for frame in range(1, 60):
            publisher.publish(make_scene(frame, labels=labels))
            assert masks.read(60).frame == frame
        assert masks.missed == 0
        assert publisher.dropped["slow_subscriber"] > 0


def test_messages_are_whole_under_load():
    """Four topics from four threads as fast as they can: every message has its own header and labels."""
    per_topic = 150
    topics = [(source, kind) for source in ("a", "b") for kind in ("provisional", "final")]
    with (
        Publisher(ANY_PORT, queue_size=8) as publisher,
        raw_subscriber(publisher.endpoint, b"masks/", hwm=4) as socket,
    ):
        assert publisher.wait_for_subscriber(60)

        def publish(number: int) -> None:
            source, kind = topics[number]
            for frame in range(per_topic):
                labels = np.full((20 + number, 30), number * 1000 + frame, np.uint16)
                publisher.publish(make_scene(frame, kind, source, labels=labels))

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(len(topics))]
        for thread in threads:
            thread.start()
        socket.setsockopt(zmq.RCVTIMEO, 500)
        last, received = {}, 0
        while True:
            try:
                parts = socket.recv_multipart()
            except zmq.Again:
                if publisher.waiting or any(thread.is_alive() for thread in threads):
                    continue
                break
            assert len(parts) == 3
            message = decode(parts)
            number = topics.index((message.source, message.kind))
            assert message.size == (20 + number, 30)
            assert (message.labels == number * 1000 + message.frame).all()
            assert message.seq == message.frame > last.get(number, -1)
            last[number] = message.frame
            received += 1
    assert received > 20
    assert received == len(topics) * per_topic or publisher.dropped


def test_content_that_may_not_go_on_the_wire_is_counted_and_the_next_scene_is_sent(publisher, caplog):
    with raw_subscriber(publisher.endpoint, b"masks/") as socket, caplog.at_level(logging.WARNING):
        assert publisher.wait_for_subscriber(60)
        for frame in range(2):
            publisher.publish(make_scene(frame, objects=(make_object(score=math.nan),)))
        publisher.publish(make_scene(2))
        message = decode(socket.recv_multipart())
    assert (message.frame, message.seq) == (2, 2)
    assert publisher.dropped == {"unencodable": 2}
    assert len(caplog.records) == 1
    assert "cannot be sent" in caplog.text


def test_names_and_states_that_cannot_be_sent_are_refused_on_the_spot(publisher):
    with pytest.raises(WireError, match="source name"):
        publisher.publish(make_scene(source="a/b"))
    with pytest.raises(WireError, match="source name"):
        publisher.eos("")
    with pytest.raises(WireError, match="unknown source state"):
        publisher.set_state("cam", "asleep")


def test_a_scene_keeps_the_time_it_was_handed_over(publisher):
    before_ns = time.time_ns()
    publisher.publish(make_scene(0))
    after_ns = time.time_ns()
    with raw_subscriber(publisher.endpoint, b"masks/") as socket:
        assert before_ns <= decode(socket.recv_multipart()).t_publish_ns <= after_ns


def test_timing_is_copied_so_that_the_engine_may_go_on_using_it(publisher):
    timing_ms = {"select": 1.0}
    publisher.publish(make_scene(0), timing_ms=timing_ms)
    timing_ms["select"] = 2.0
    with raw_subscriber(publisher.endpoint, b"masks/") as socket:
        assert json.loads(socket.recv_multipart()[1])["timing_ms"] == {"select": 1.0}


def test_the_outbox_drops_the_oldest_of_a_full_topic_only_and_leaves_a_gap():
    outbox = Outbox(2)
    for topic in (b"a", b"b", b"a", b"a", b"b", b"a"):
        outbox.put(topic, lambda seq, t_publish_ns: [b"%d" % seq])
    found = []
    while (item := outbox.take()) is not None:
        found.append((item.topic, item.seq, item.parts()))
    assert found == [(b"b", 0, [b"0"]), (b"a", 2, [b"2"]), (b"b", 1, [b"1"]), (b"a", 3, [b"3"])]
    assert outbox.dropped == 2
    outbox.put(b"a", lambda seq, t_publish_ns: [])
    assert outbox.take().seq == 4


@pytest.mark.parametrize(
    ("endpoint", "complaint"),
    [
        ("tcp://0.0.0.0:0", "without encryption"),
        ("tcp://*:0", "without encryption"),
        ("tcp://192.168.1.5:5555", "without encryption"),
        ("tcp://lo:5555", "without encryption"),
        ("tcp://example.org:5555", "without encryption"),
        ("5555", "cannot be used"),
        ("udp://127.0.0.1:5555", "cannot be used"),
        ("ipc://", "cannot be used"),
        ("tcp://127.0.0.1:99999", "port '99999'"),
        ("tcp://127.0.0.1:http", "port 'http'"),
        ("tcp://localhost:", "port ''"),
        ("ipc:///proc/no/such/socket", "cannot be bound"),
        (f"ipc:///tmp/{'x' * 200}", "cannot be bound"),
    ],
)
def test_endpoints_that_cannot_be_used_are_usage_errors_of_one_line(endpoint, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        Publisher(endpoint)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_insecure_allows_what_others_can_reach():
    with Publisher("tcp://0.0.0.0:0", insecure=True) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:1",
        "tcp://127.9.9.9:1",
        "tcp://[::1]:1",
        "tcp://localhost:1",
        "ipc:///tmp/x",
        "inproc://x",
    ],
)
def test_loopback_endpoints(endpoint):
    assert is_loopback(endpoint)


@pytest.mark.parametrize("endpoint", [ANY_PORT, "tcp://127.0.0.1:*", "tcp://localhost:0"])
def test_the_port_the_system_chose_can_be_read(endpoint):
    with Publisher(endpoint) as publisher:
        assert int(publisher.endpoint.rpartition(":")[2]) > 0


def test_an_endpoint_in_use_is_a_usage_error_and_its_owner_goes_on(publisher, tmp_path):
    with pytest.raises(UsageError, match="is in use"):
        Publisher(publisher.endpoint)
    endpoint = f"ipc://{tmp_path}/private/masks"
    with Publisher(endpoint) as owner:
        assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700
        with pytest.raises(UsageError, match="is in use"):
            Publisher(endpoint)
        owner.publish(make_scene(5))
        with raw_subscriber(endpoint, b"masks/") as socket:
            assert decode(socket.recv_multipart()).frame == 5
    with Publisher(endpoint) as successor:
        assert successor.endpoint == endpoint


def test_inproc_works_with_a_shared_context():
    context = zmq.Context()
    with (
        Publisher("inproc://masks", context=context) as publisher,
        MaskSubscriber("inproc://masks", context=context) as masks,
    ):
        publisher.publish(replace(make_scene(4)))
        assert masks.read(60).frame == 4
    context.term()
