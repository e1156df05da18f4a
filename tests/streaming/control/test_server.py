"""The control channel: every operation works, nothing wrong gets through, nobody is waited for."""

import json
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import zmq

from engine.errors import UsageError
from streaming import keys
from streaming.control.client import ControlClient
from streaming.control.protocol import MAX_REQUEST_BYTES, ControlError
from streaming.control.server import MAX_PENDING, ControlServer
from streaming.control.settings import LIVE_KEYS
from streaming.label_codec import decode_labels
from tests.streaming.control.steered import FRAME_SIZE, RecordingSession
from tests.streaming.scenes import eventually

ANY_PORT = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0


@pytest.fixture
def session():
    return RecordingSession()


@pytest.fixture
def server(session):
    with ControlServer(ANY_PORT, session.operations()) as server:
        yield server


@pytest.fixture
def client(server):
    with ControlClient(server.endpoint, timeout_s=PATIENCE_S) as client:
        yield client


@contextmanager
def raw_socket(endpoint: str, kind: int = zmq.DEALER, options: tuple[tuple[int, int], ...] = ()):
    """A plain socket; receiving fails after a minute instead of hanging."""
    context = zmq.Context()
    socket = context.socket(kind)
    for option, value in ((zmq.RCVTIMEO, 60_000), *options):
        socket.setsockopt(option, value)
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def ask(socket, **fields) -> dict:
    socket.send_json({"v": 1, "id": 1, **fields})
    return json.loads(socket.recv_multipart()[-1])


def test_questions_are_answered(client):
    assert client.status() == {"frames": 12, "fps": 29.5}
    assert client.sources() == [{"name": "cam", "state": "live"}, {"name": "door", "state": "live"}]


def test_sources_are_paused_resumed_added_and_removed(client, session):
    client.pause("cam")
    client.pause()
    client.resume("cam")
    assert client.add_source("lab=rtsp://host/stream") == "lab"
    client.remove_source("door")
    assert session.told == [
        ("pause", "cam"),
        ("pause", None),
        ("resume", "cam"),
        ("add", "lab=rtsp://host/stream"),
        ("remove", "door"),
    ]


def test_what_a_source_raises_reaches_the_client_with_its_exit_code(client, session):
    with pytest.raises(ControlError, match="cannot be opened") as caught:
        client.add_source("lab=nowhere")
    assert (caught.value.code, caught.value.exit_code) == ("source", 3)
    assert session.told == []


def test_objects_are_tracked_by_box_point_and_mask_and_let_go(client, session):
    mask = np.zeros(FRAME_SIZE, bool)
    mask[3:9, 5:20] = True
    assert client.track("cam", box=(1, 2, 30, 40)) == 41
    assert client.track("cam", point=(np.float32(5), 6)) == 41
    assert client.track("door", mask=mask) == 41
    client.forget(41, "cam")
    (_, _, _, box, _), (_, _, _, _, point), (_, source, sent, _, _), forgotten = session.told
    assert (box, point, source) == ((1, 2, 30, 40), (5, 6), "door")
    np.testing.assert_array_equal(sent, mask)
    assert forgotten == ("forget", "cam", 41)


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ({}, "exactly one of mask, box, point"),
        ({"box": [0, 0, 1, 1], "point": [1, 1]}, "exactly one"),
        ({"box": [0, 0, 1]}, "list of 4 numbers"),
        ({"box": [0, 0, 1, "1"]}, "finite number"),
        ({"box": [0, 0, 1, True]}, "finite number"),
        ({"point": {"x": 1}}, "list of 2 numbers"),
        ({"point": [-1, 1]}, "outside the frame"),
        ({"mask": {"encoding": "png", "shape": [48, 64], "data": "!"}}, "not base64"),
        ({"mask": {"encoding": "pickle", "shape": [48, 64], "data": ""}}, "rle.zlib, png or raw"),
        ({"mask": {"encoding": "rle+zlib", "shape": [4096, 8192], "data": ""}}, r"\(48, 64\)"),
        ({"mask": {"encoding": "raw", "shape": [48, 64], "data": "AAAA"}}, "3"),
        ({"mask": {"encoding": "raw", "shape": [48, 64]}}, "no 'data'"),
        ({"mask": {"encoding": "raw", "shape": [48, 64], "data": "", "x": 1}}, "unknown key 'x'"),
        ({"mask": [1]}, "an object is needed"),
    ],
)
def test_prompts_that_make_no_sense_change_nothing(client, session, prompt, complaint):
    with pytest.raises(ControlError, match=complaint):
        client.call("track", {"source": "cam", **prompt})
    assert session.told == []


def test_the_only_source_need_not_be_named(client, session):
    with pytest.raises(ControlError, match="name a source: cam, door"):
        client.track(point=(1, 1))
    session.names.remove("door")
    client.track(point=(1, 1))
    assert session.told == [("track", "cam", None, None, (1.0, 1.0))]
    with pytest.raises(ControlError, match=r"no source 'cams' \(did you mean 'cam'\?\)"):
        client.track("cams", point=(1, 1))


def test_settings_change_together_or_not_at_all(client, session):
    values = client.set({"select.lambda_flow": 2, "propose.proposals": "20"})
    assert set(values) == set(LIVE_KEYS)
    assert (values["select.lambda_flow"], values["propose.proposals"]) == (2.0, 20)
    ((_, config),) = session.told
    assert (config.select.lambda_flow, config.propose.proposals) == (2.0, 20)
    for settings, complaint in (
        ({"select.lambda_flow": 3, "propose.proposals": 0}, "must be 1"),
        ({"select.lambda_flw": 3}, "did you mean 'select.lambda_flow'"),
        ({"perceive.threads": 1}, "cannot change live"),
        ({"select.lambda_flow": True}, "a finite number is needed, not a bool"),
        ({"select.lambda_flow": [1]}, "not a list"),
        ({"select.lambda_flow": "x" * 1000}, "1000 characters"),
    ):
        with pytest.raises(ControlError, match=complaint):
            client.set(settings)
    assert len(session.told) == 1
    assert client.set({})["select.lambda_flow"] == 2.0


def test_a_snapshot_is_a_picture_with_its_objects(client):
    overlay = client.snapshot("cam", width_px=32)
    picture = cv2.imdecode(np.frombuffer(overlay["data"], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == (24, 32)
    assert overlay["size"] == [24, 32]
    assert overlay["frame_size"] == list(FRAME_SIZE)
    assert [item["id"] for item in overlay["objects"]] == [7]
    labels = client.snapshot("cam", "labels")
    assert (decode_labels(labels["data"], "png", FRAME_SIZE) == 1).sum() == 200
    plain = client.snapshot("cam", "image")["data"]
    assert plain != client.snapshot("cam", "overlay")["data"]
    for args, complaint in (({"what": "video"}, "one of overlay"), ({"width_px": 100_000}, "from 16 to 1920")):
        with pytest.raises(ControlError, match=complaint):
            client.call("snapshot", {"source": "cam", **args})


def test_models_are_reloaded_and_a_defect_is_reported_without_its_inside(client, session, caplog):
    assert client.reload_model() == 2
    with pytest.raises(ControlError, match="rollback_model failed: RuntimeError") as caught:
        client.rollback_model()
    assert caught.value.code == "internal"
    assert "a defect" not in str(caught.value)
    assert "a defect of the registry" in caplog.text


def test_an_engine_without_registry_or_settings_says_so(session):
    from streaming.control.operations import Operations

    with (
        ControlServer(ANY_PORT, Operations(session, dict)) as server,
        ControlClient(server.endpoint, timeout_s=PATIENCE_S) as client,
    ):
        for op, args in (("reload_model", {}), ("rollback_model", {}), ("set", {"settings": {}})):
            with pytest.raises(ControlError) as caught:
                client.call(op, args)
            assert caught.value.code == "unavailable"


def test_shutdown_is_answered(client, session):
    client.shutdown()
    assert session.told == [("stop",)]


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_plain_sockets_of_any_language_are_answered(server, kind):
    with raw_socket(server.endpoint, kind) as socket:
        assert ask(socket, op="status", args={})["result"] == {"frames": 12, "fps": 29.5}
        assert ask(socket, op="status", id="text")["id"] == "text"


@pytest.mark.parametrize(
    ("message", "code", "answered_id"),
    [
        (b"", "malformed", None),
        (b"\xff\xfe", "malformed", None),
        (b"{", "malformed", None),
        (b"[]", "malformed", None),
        (b"[" * 100_000, "malformed", None),
        (b'{"v": 1, "id": 1, "op": "status", "args": ' + b'{"a":' * 50_000, "malformed", None),
        (b'{"v": 1, "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": 1.5, "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": true, "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": ' + b"9" * 5000 + b', "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": ' + b"9" * 50 + b', "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": "' + b"x" * 129 + b'", "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": 4, "id": 5, "op": "status"}', "malformed", None),
        (b'{"v": 1, "id": 4, "op": NaN}', "malformed", None),
        (b'{"v": 1, "id": 4, "op": 5}', "malformed", 4),
        (b'{"v": 1, "id": 4, "op": "status", "args": []}', "malformed", 4),
        (b'{"v": 1, "id": 4, "op": "status", "more": 1}', "malformed", 4),
        (b'{"v": 2, "id": 4, "op": "status"}', "version", 4),
        (b'{"v": true, "id": 4, "op": "status"}', "version", 4),
        (b'{"id": 4, "op": "status"}', "version", 4),
        (b'{"v": 1, "id": "a", "op": "stats"}', "unknown_op", "a"),
        (b'{"v": 1, "id": 4, "op": "__init__"}', "unknown_op", 4),
        (b'{"v": 1, "id": 4, "op": "status", "args": {"x": 1}}', "bad_args", 4),
        (b'{"v": 1, "id": 4, "op": "pause", "args": {"source": null}}', "bad_args", 4),
        (b'{"v": 1, "id": 4, "op": "pause", "args": {"source": "a/b"}}', "bad_args", 4),
        (b'{"v": 1, "id": 4, "op": "track", "args": {"source": "cam", "point": [1e999, 1]}}', "bad_args", 4),
        (b'{"v": 1, "id": 4, "op": "forget", "args": {"source": "cam", "object": -1}}', "bad_args", 4),
        (b'{"v": 1, "id": 4, "op": "add_source", "args": {"source": "a\\u0000"}}', "bad_args", 4),
        (b" " * (MAX_REQUEST_BYTES + 1), "too_large", None),
    ],
)
def test_malformed_requests_are_refused_in_one_line_and_change_nothing(server, session, message, code, answered_id):
    with raw_socket(server.endpoint) as socket:
        socket.send(message)
        reply = json.loads(socket.recv())
        assert (reply["ok"], reply["error"]["code"], reply["id"]) == (False, code, answered_id)
        assert "\n" not in reply["error"]["message"]
        assert len(reply["error"]["message"]) <= 500
        assert ask(socket, op="status")["ok"]
    assert session.told == []
    assert server.counts == {code: 1, "ok": 1}


def test_a_message_of_several_parts_is_refused(server):
    with raw_socket(server.endpoint) as socket:
        for parts in ([b"a", b"{}"], [b"", b"", b"{}"], [b"{}"] * 100):
            socket.send_multipart(parts)
            assert json.loads(socket.recv_multipart()[-1])["error"]["code"] == "malformed"


def test_what_is_much_too_large_ends_that_connection_only(server, client):
    with raw_socket(server.endpoint) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 300)
        socket.send(b" " * (5 * MAX_REQUEST_BYTES))
        assert client.status()["frames"] == 12
        with pytest.raises(zmq.Again):
            socket.recv()
    assert client.status()["frames"] == 12


def test_too_many_requests_are_told_so_and_questions_still_answered(server, session, client):
    session.hold.clear()
    with raw_socket(server.endpoint) as socket:
        for number in range(MAX_PENDING + 5):
            socket.send_json({"v": 1, "id": number, "op": "pause", "args": {}})
        refused = [json.loads(socket.recv()) for _ in range(5)]
        assert {reply["error"]["code"] for reply in refused} == {"busy"}
        assert client.status()["frames"] == 12  # while every place in the queue is taken
        session.hold.set()
        done = [json.loads(socket.recv()) for _ in range(MAX_PENDING)]
        assert all(reply["ok"] for reply in done)
    assert session.told == [("pause", None)] * MAX_PENDING


def test_loading_a_model_keeps_nobody_from_steering(server, session, client, monkeypatch):
    loading, loaded = threading.Event(), threading.Event()

    def slow_reload() -> int:
        loading.set()
        assert loaded.wait(PATIENCE_S)
        return 2

    monkeypatch.setattr(session, "reload", slow_reload)
    with raw_socket(server.endpoint) as socket:
        socket.send_json({"v": 1, "id": 7, "op": "reload_model"})
        assert loading.wait(PATIENCE_S)
        client.pause("cam")
        assert session.told == [("pause", "cam")]
        loaded.set()
        assert json.loads(socket.recv()) == {"v": 1, "id": 7, "ok": True, "result": {"generation": 2}}


def test_a_client_that_never_reads_holds_up_nobody(server, client):
    with raw_socket(server.endpoint, options=((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.SNDHWM, 100_000))) as deaf:
        number = 0
        while not server.counts["unanswered"]:
            deaf.send(b'{"v": 1, "id": %d, "op": "%s"}' % (number, b"x" * 60))
            number += 1
            assert number < 200_000
        assert client.status()["frames"] == 12
    assert client.status()["frames"] == 12


def test_clients_that_left_are_counted(server, session, client):
    session.hold.clear()
    with raw_socket(server.endpoint) as socket:
        socket.send_json({"v": 1, "id": 1, "op": "pause"})
        assert eventually(lambda: server._pending._value < MAX_PENDING)
    assert client.status()["frames"] == 12
    session.hold.set()
    assert eventually(lambda: session.told == [("pause", None)])
    assert client.status()["frames"] == 12


def test_closing_answers_what_waits_and_leaves_no_thread(session):
    before = threading.active_count()
    session.hold.clear()
    server = ControlServer(ANY_PORT, session.operations())
    with raw_socket(server.endpoint) as socket:
        socket.send_json({"v": 1, "id": 1, "op": "pause"})
        socket.send_json({"v": 1, "id": 2, "op": "resume"})
        assert eventually(lambda: server._pending._value == MAX_PENDING - 2)
        closing = threading.Thread(target=lambda: server.close(timeout_s=PATIENCE_S))
        closing.start()
        session.hold.set()
        replies = [json.loads(socket.recv()) for _ in range(2)]
        assert [(reply["id"], reply["ok"]) for reply in replies] == [(1, True), (2, True)]
        closing.join(PATIENCE_S)
    server.close()
    assert eventually(lambda: threading.active_count() <= before)


def test_a_client_says_who_does_not_answer(session):
    with ControlServer(ANY_PORT, session.operations()) as server:
        endpoint = server.endpoint
    with (
        ControlClient(endpoint, timeout_s=0.2) as client,
        pytest.raises(ControlError, match=r"no answer from tcp://.* within 0\.2 s.*--control") as caught,
    ):
        client.status()
    assert (caught.value.code, caught.value.exit_code) == ("no_answer", 1)


def test_a_request_nobody_took_is_not_delivered_to_an_engine_that_starts_later(session):
    with ControlServer(ANY_PORT, session.operations()) as server:
        endpoint = server.endpoint
    with ControlClient(endpoint, timeout_s=0.2) as client:
        with pytest.raises(ControlError):
            client.shutdown()
        with ControlServer(endpoint, session.operations()):
            assert client.call("status", timeout_s=PATIENCE_S)["frames"] == 12
    assert session.told == []


def test_a_late_answer_is_not_taken_for_the_next_one(server, session):
    session.hold.clear()
    with ControlClient(server.endpoint, timeout_s=0.3) as client:
        with pytest.raises(ControlError):
            client.pause()
        session.hold.set()
        assert client.call("sources", timeout_s=PATIENCE_S)[0]["name"] == "cam"


def test_control_needs_its_own_keys(tmp_path, session):
    folder = tmp_path / "keys"
    keys.create(folder, client="robot")
    viewer = keys.add_client(folder, "viewer", ("data",))
    with ControlServer(ANY_PORT, session.operations(), keys=keys.load_server(folder, "control")) as server:
        with ControlClient(server.endpoint, folder / "clients" / "robot", PATIENCE_S) as robot:
            assert robot.status()["frames"] == 12
        with pytest.raises(UsageError, match=r"control\.secret"):
            ControlClient(server.endpoint, viewer)
        # Whoever may read masks still may not steer: its keys are not authorised here.
        (viewer / "control.secret").write_bytes((viewer / "data.secret").read_bytes())
        (viewer / "control.secret").chmod(0o600)
        (viewer / "control.server").write_bytes((folder / "clients" / "robot" / "control.server").read_bytes())
        for wrong in (None, viewer):
            with ControlClient(server.endpoint, wrong, 0.5) as intruder, pytest.raises(ControlError) as caught:
                intruder.shutdown()
            assert caught.value.code == "no_answer"
    assert session.told == []


def test_other_machines_need_keys_or_insecure(session, tmp_path):
    with pytest.raises(UsageError, match="--keys DIR"):
        ControlServer("tcp://0.0.0.0:0", session.operations())
    ControlServer("tcp://0.0.0.0:0", session.operations(), insecure=True).close()
    keys.create(tmp_path / "keys")
    ControlServer("tcp://0.0.0.0:0", session.operations(), keys=keys.load_server(tmp_path / "keys", "control")).close()
