"""Ten thousand malformed messages through a real socket: each is refused, none changes anything."""

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import zmq

from streaming.control.client import ControlClient
from streaming.control.server import ControlServer
from streaming.status import resident_bytes
from tests.streaming.control.steered import RecordingSession

MESSAGES = 12_000
BATCH = 16  # below what waits for its turn at most, so that no message is refused for that reason alone

# What no argument of any operation may be; "" and names of no source among them.
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 2**70, "", "nobody", "a/b", "../x", "\x00", "🎥" * 30, "x" * 3000),
    *([], [[]], {}, {"a": 1}, [None]),
)
ARGUMENTS = {
    "pause": ("source",),
    "resume": ("source",),
    "remove_source": ("source",),
    "set": ("settings",),
    "track": ("mask", "box", "point"),
    "forget": ("object",),
    "snapshot": ("source", "what", "width_px"),
}
VALID = (
    {"v": 1, "id": 1, "op": "pause", "args": {"source": "cam"}},
    {"v": 1, "id": "a", "op": "track", "args": {"source": "cam", "box": [1, 2, 30, 40]}},
    {"v": 1, "id": 2, "op": "set", "args": {"settings": {"select.lambda_flow": 2}}},
    {"v": 1, "id": 3, "op": "shutdown", "args": {}},
    {"v": 1, "id": 4, "op": "reload_model"},
)


def malformed(rng: random.Random) -> Iterator[list[bytes]]:
    """Messages that are wrong by construction, as parts."""
    while True:
        valid = rng.choice(VALID)
        data = json.dumps(valid).encode()
        yield [rng.randbytes(rng.randrange(0, 200))]
        yield [data[: rng.randrange(len(data))]]
        yield [data + rng.randbytes(rng.randrange(1, 9)).replace(b" ", b"!") + b"}"]
        yield [data.replace(b'"op"', b'"\xc3\x28"')]
        yield [json.dumps({**valid, "v": rng.choice([0, 2, -1, "1", None, 1.0, 10**30, []])}).encode()]
        yield [json.dumps({**valid, "id": rng.choice([None, 1.5, True, [], {}, "", "x" * 200, 2**64])}).encode()]
        yield [
            json.dumps(
                {**valid, "op": rng.choice(["", "exec", "__class__", "STATUS", None, 7, [], "x" * 9000])}
            ).encode()
        ]
        yield [
            json.dumps({**valid, "args": rng.choice([None, 1, "x", [], {"unheard_of": 1}, {"__proto__": {}}])}).encode()
        ]
        yield [json.dumps({**valid, rng.choice(["sudo", "", "V"]): 1}).encode()]
        yield [data[:-1] + b', "id": 9}']
        yield [b"[" * rng.randrange(1, 5000)]
        yield [data.replace(b"1", rng.choice([b"NaN", b"Infinity", b"1" * 5000, b"01"]))]
        yield [b"", b"", data]
        yield [data] * rng.randrange(2, 20)
        yield [rng.randbytes(5), data]
        op = rng.choice(tuple(ARGUMENTS))
        wrong = {rng.choice(ARGUMENTS[op]): rng.choice([junk for junk in JUNK if not (op == "set" and junk == {})])}
        source = {} if "source" in ARGUMENTS[op] else {"source": "cam"}
        if op == "set":
            source, wrong = {}, rng.choice([wrong, {"settings": {"select.lambda_flow": rng.choice(JUNK)}}])
        yield [json.dumps({"v": 1, "id": 5, "op": op, "args": {**source, **wrong}}).encode()]


def test_ten_thousand_malformed_messages_are_refused_and_change_nothing():
    session = RecordingSession()
    with ControlServer("tcp://127.0.0.1:0", session.operations()) as server:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVTIMEO, 60_000)
        socket.connect(server.endpoint)
        messages = malformed(random.Random(7))
        sent, settled_rss, threads = 0, 0, 0
        while sent < MESSAGES:
            batch = [next(messages) for _ in range(BATCH)]
            for parts in batch:
                socket.send_multipart(parts)
            # Those a worker refuses may overtake each other: every message has its answer, in whatever order.
            for _ in batch:
                reply = json.loads(socket.recv_multipart()[-1])
                assert reply["ok"] is False, reply
                assert reply["error"]["code"] not in ("internal", "busy"), reply
            sent += BATCH
            if sent == MESSAGES // 3:
                settled_rss, threads = resident_bytes(), threading.active_count()
        assert session.told == []
        assert sum(server.counts.values()) == sent
        assert threading.active_count() <= threads
        assert resident_bytes() - settled_rss < 2**25
        with ControlClient(server.endpoint, timeout_s=60) as client:
            assert client.status()["frames"] == 12
        context.destroy(linger=0)


def test_bytes_that_are_not_even_zeromq_are_shaken_off():
    import socket as sockets

    rng = random.Random(8)
    session = RecordingSession()
    with ControlServer("tcp://127.0.0.1:0", session.operations()) as server:
        port = int(server.endpoint.rpartition(":")[2])
        for _ in range(200):
            with sockets.create_connection(("127.0.0.1", port), timeout=60) as plain:
                plain.sendall(
                    rng.choice([b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f", b""]) + rng.randbytes(100)
                )
        with ControlClient(server.endpoint, timeout_s=60) as client:
            assert client.status()["frames"] == 12
    assert session.told == []
