"""The subscriber: fresh masks for slow consumers, every mask for those who keep up, no surprises."""

import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

import streaming.subscriber
from engine.errors import UsageError
from streaming.inbox import NewestInbox
from streaming.publisher import Publisher
from streaming.subscriber import MaskSubscriber
from streaming.wire import decode, encode_eos, encode_heartbeat, encode_scene
from tests.streaming.scenes import eventually, make_scene

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def publisher():
    with Publisher(ANY_PORT, queue_size=64, patience_ms=20_000) as publisher:
        yield publisher


@contextmanager
def raw_sender():
    """A sender we have full control of: `send(parts)` once somebody has subscribed."""
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    socket.bind("tcp://127.0.0.1:*")
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def await_subscriptions(socket, count: int = 2) -> None:
    for _ in range(count):
        assert socket.recv()[:1] == b"\x01"


def test_a_slow_consumer_gets_the_newest_scene():
    """Five scenes come while it works on one: four are skipped, and the fifth is what it reads next.

    How old scenes are by the clock is measured by `benchmarks.slow_subscriber`.
    """
    with Publisher(ANY_PORT, queue_size=64, send_hwm=64) as publisher, MaskSubscriber(publisher.endpoint) as masks:
        publisher.publish(make_scene(0, size=(120, 160)))
        assert masks.read(60).frame == 0
        for batch in range(1, 31):
            for frame in range(5 * batch - 4, 5 * batch + 1):
                publisher.publish(make_scene(frame, size=(120, 160)))
            assert eventually(lambda count=4 * batch: masks.skipped == count)
            assert masks.read(60).frame == 5 * batch
        assert masks.missed == 0


def test_the_newest_scene_is_delivered_once(publisher):
    with MaskSubscriber(publisher.endpoint) as masks:
        publisher.publish(make_scene(0))
        assert masks.read(60).frame == 0
        assert masks.read(0.1) is None
        publisher.publish(make_scene(1))
        assert masks.read(60).frame == 1
        assert masks.read(0) is None


def test_every_source_is_served_in_turn_and_with_its_newest():
    inbox = NewestInbox()
    for seq, source in enumerate(["a", "b", "b", "c", "a", "a"]):
        displaced = inbox.put(decode(encode_scene(make_scene(seq, source=source), session="s", seq=seq)))
        assert displaced == (seq in (2, 4, 5))
    # A source that sends more often keeps its place in the line and does not push the others out.
    found = [inbox.take() for _ in range(len(inbox))]
    assert [(scene.source, scene.frame) for scene in found] == [("a", 5), ("b", 2), ("c", 3)]


def test_every_scene_of_a_file_arrives():
    """250 frames as fast as the publisher takes them, a provisional and a final each: no final is lost on the way."""
    frames = 250
    with (
        Publisher(ANY_PORT, queue_size=64, send_hwm=64, patience_ms=20_000) as publisher,
        MaskSubscriber(publisher.endpoint, every=True) as masks,
    ):
        assert publisher.wait_for_subscriber(60)
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.extend(scene.frame for scene in masks))
        reader.start()
        for frame in range(frames):
            publisher.publish(make_scene(frame, "provisional", size=(480, 854)))
            publisher.publish(make_scene(frame, size=(480, 854)))
            assert eventually(lambda: publisher.waiting < 64)
        publisher.eos("cam")
        reader.join(60)
        assert not reader.is_alive()
        assert len(found) + masks.missed == frames
        assert found == list(range(frames))


def test_a_full_queue_loses_the_oldest_and_says_how_many(publisher):
    with MaskSubscriber(publisher.endpoint, every=True, queue_size=10) as masks:
        assert publisher.wait_for_subscriber(60)
        for frame in range(30):
            publisher.publish(make_scene(frame))
        assert eventually(lambda: masks.missed == 20)
        assert [masks.read(60).frame for _ in range(10)] == list(range(20, 30))
        assert masks.read(0) is None
        assert masks.skipped == 0


def test_gaps_in_seq_are_counted_per_topic():
    with raw_sender() as socket, MaskSubscriber(endpoint_of(socket), every=True) as masks:
        await_subscriptions(socket)
        for source, seqs in (("a", (4, 5, 9, 9, 10)), ("b", (0, 2))):
            for seq in seqs:
                scene = make_scene(seq, source=source)
                socket.send_multipart(encode_scene(scene, session="s", seq=seq))
        found = [masks.read(60) for _ in range(6)]
        assert [(scene.source, scene.seq) for scene in found] == [
            ("a", 4),
            ("a", 5),
            ("a", 9),
            ("a", 10),
            ("b", 0),
            ("b", 2),
        ]
        assert masks.missed == 3 + 1


def endpoint_of(socket: zmq.Socket) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def test_messages_that_break_the_protocol_are_skipped_and_counted():
    good = encode_scene(make_scene(7), session="s", seq=0)
    newer = [good[0], json.dumps(json.loads(good[1]) | {"v": 2}).encode(), good[2]]
    broken = [
        [b"masks/"],
        [good[0]],
        [good[0], b"not json", good[2]],
        [good[0], good[1]],
        newer,
        [b"masks/other/final/", *good[1:]],
        [b"state/\xff/", b"\xff"],
    ]
    with raw_sender() as socket, MaskSubscriber(endpoint_of(socket), every=True) as masks:
        await_subscriptions(socket)
        for parts in broken:
            socket.send_multipart(parts)
        socket.send_multipart([*good[:2], good[2][:-1]])
        for seq in (1, 2):
            socket.send_multipart(encode_scene(make_scene(seq), session="s", seq=seq))
        assert [masks.read(60).frame for _ in range(2)] == [1, 2]
        # `[b"masks/"]` ends in no kind that was asked for and is left out like any other topic.
        assert masks.malformed == len(broken) - 1 + 1


def test_random_bytes_do_not_stop_the_subscriber():
    rng = np.random.default_rng(3)
    good = encode_scene(make_scene(0), session="s", seq=0)
    with raw_sender() as socket, MaskSubscriber(endpoint_of(socket), every=True) as masks:
        await_subscriptions(socket)
        for _ in range(300):
            parts = [bytearray(part) for part in good]
            part = parts[rng.integers(1, 3)]
            part[rng.integers(len(part))] ^= int(rng.integers(1, 256))
            socket.send_multipart([bytes(part) for part in parts])
        socket.send_multipart(encode_scene(make_scene(9), session="last", seq=0))
        while masks.read(60).session != "last":
            pass
        assert masks.malformed > 100


def test_the_kind_and_the_source_that_were_asked_for_are_delivered(publisher):
    with (
        MaskSubscriber(publisher.endpoint, every=True) as finals,
        MaskSubscriber(publisher.endpoint, every=True, kind="provisional") as provisionals,
        MaskSubscriber(publisher.endpoint, every=True, kind="both", source="b") as both,
    ):
        for source in ("a", "b"):
            publisher.set_state(source, "live")
        assert eventually(lambda: all(len(masks.sources) == 2 for masks in (finals, provisionals)))
        for source in ("a", "b"):
            for kind in ("provisional", "final"):
                publisher.publish(make_scene(1, kind, source))
        publisher.eos("a")
        publisher.eos("b")
        assert [(scene.source, scene.kind) for scene in finals] == [("a", "final"), ("b", "final")]
        found = [(scene.source, scene.kind) for scene in provisionals]
        assert found == [("a", "provisional"), ("b", "provisional")]
        assert [(scene.source, scene.kind) for scene in both] == [("b", "provisional"), ("b", "final")]
        assert both.sources == ("b",)
        assert finals.missed == provisionals.missed == both.missed == 0


def test_the_iterator_ends_when_all_sources_have_ended(publisher):
    publisher.set_state("a", "live")
    publisher.set_state("b", "live")
    with MaskSubscriber(publisher.endpoint, every=True) as masks:
        assert eventually(lambda: masks.sources == ("a", "b"))
        publisher.publish(make_scene(0, source="a"))
        publisher.eos("a")
        scenes = iter(masks)
        assert next(scenes).source == "a"
        assert eventually(lambda: masks.state("a") == "ended")
        assert not masks.ended
        publisher.publish(make_scene(1, source="b"))
        publisher.eos("b")
        assert [scene.source for scene in scenes] == ["b"]
        assert masks.ended


def test_without_until_eos_the_iterator_waits_for_the_next_start(publisher):
    with MaskSubscriber(publisher.endpoint, every=True, until_eos=False) as masks:
        publisher.publish(make_scene(0))
        publisher.eos("cam")
        scenes = iter(masks)
        assert next(scenes).frame == 0
        assert eventually(lambda: masks.ended)
        publisher.publish(make_scene(1))
        assert next(scenes).frame == 1


def test_a_late_subscriber_of_a_finished_run_gets_the_last_scene_and_ends(publisher):
    publisher.publish(make_scene(41))
    publisher.eos("cam")
    with MaskSubscriber(publisher.endpoint) as masks:
        assert [scene.frame for scene in masks] == [41]


def test_the_subscriber_may_start_before_the_publisher_and_survives_its_restart(tmp_path):
    endpoint = f"ipc://{tmp_path}/masks"
    with MaskSubscriber(endpoint, every=True) as masks:
        for start in range(2):
            with Publisher(endpoint) as publisher:
                assert publisher.wait_for_subscriber(60)
                for frame in range(3):
                    publisher.publish(make_scene(frame))
                found = [masks.read(60) for _ in range(3)]
                assert [scene.seq for scene in found] == [0, 1, 2]
                assert {scene.session for scene in found} == {publisher.session}, start
        assert masks.missed == 0


def test_what_the_sender_says_about_a_source_can_be_asked(publisher):
    with MaskSubscriber(publisher.endpoint) as masks:
        assert masks.state("cam") == "unknown"
        for state in ("live", "stalled", "reconnecting"):
            publisher.set_state("cam", state)
            assert eventually(lambda state=state: masks.state("cam") == state)
        publisher.eos("cam")
        assert eventually(lambda: masks.state("cam") == "ended")


def test_a_sender_that_says_nothing_is_called_silent(monkeypatch):
    monkeypatch.setattr(streaming.subscriber, "SILENT_AFTER_S", 0.2)
    with raw_sender() as socket, MaskSubscriber(endpoint_of(socket)) as masks:
        await_subscriptions(socket)
        socket.send_multipart(encode_heartbeat("a", "live", session="s", seq=0))
        socket.send_multipart(encode_eos("b", session="s", seq=0))
        assert eventually(lambda: masks.sources == ("a", "b"))
        assert eventually(lambda: masks.state("a") == "silent")
        assert masks.state("b") == "ended"
        socket.send_multipart(encode_heartbeat("a", "live", session="s", seq=1))
        assert eventually(lambda: masks.state("a") == "live")


def test_reading_gives_up_in_time_and_closing_ends_a_waiting_reader():
    with raw_sender() as socket:
        masks = MaskSubscriber(endpoint_of(socket))
        start_s = time.monotonic()
        assert masks.read(0.2) is None
        assert time.monotonic() - start_s > 0.19
        results: list[object] = []
        readers = [
            threading.Thread(target=lambda: results.append(masks.read())),
            threading.Thread(target=lambda: results.append(list(masks))),
        ]
        for reader in readers:
            reader.start()
        masks.close()
        for reader in readers:
            reader.join(60)
        assert sorted(results, key=str) == [None, []]
        masks.close()


def test_waiting_costs_no_processor_time(publisher):
    with MaskSubscriber(publisher.endpoint) as masks:
        assert publisher.wait_for_subscriber(60)
        before_s = time.process_time()
        assert masks.read(1.0) is None
        assert time.process_time() - before_s < 0.3


@pytest.mark.parametrize("endpoint", ["5555", "foo://127.0.0.1:5", "tcp://127.0.0.1"])
def test_endpoints_that_cannot_be_used_are_usage_errors(endpoint):
    with pytest.raises(UsageError, match="cannot subscribe"):
        MaskSubscriber(endpoint)


def test_unknown_kinds_are_usage_errors():
    with pytest.raises(UsageError, match=r"'finals'.*final, provisional, both"):
        MaskSubscriber(kind="finals")
