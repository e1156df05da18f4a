"""Metrics tell what happened, health tells whether the engine lives, and neither tells a password."""

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import EngineError, UsageError
from streaming import health as health_module
from streaming.health import Health
from streaming.metrics import Metrics
from streaming.metrics_server import MetricsServer, parse_address
from streaming.subscriber import MaskSubscriber
from tests.streaming.running import running_engine
from tests.streaming.scenes import eventually


def read(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[tuple, float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_running_engine_is_measured(motion_model: Path):
    with running_engine(motion_model, "cam", "door") as engine, MetricsServer("0", Health(engine.status)) as server:
        server.metrics = Metrics(engine.status, lambda: {"ok": 3, "malformed": 1})
        engine.session.observe(server.metrics.frame)
        with MaskSubscriber(engine.publisher.endpoint, kind="provisional"):
            assert eventually(lambda: engine.publisher.subscribers == 1)
            for name in ("cam", "door"):
                assert engine.goes_on(name)
            code, text = read(server.port, "/metrics")
        found = samples(text)
        assert code == 200
        for name in ("cam", "door"):
            assert 0 < found["unseen_frames_total", name] <= found["unseen_captured_total", name]
            assert found["unseen_frame_age_seconds_count", name] > 0
            assert 0 < found["unseen_frame_age_seconds_sum", name] < 60
            assert found["unseen_frame_latency_seconds_count", name] > 0
            assert found["unseen_source_state", name, "live"] == 1
            assert found["unseen_source_state", name, "reconnecting"] == 0
            assert found["unseen_newest_frame_age_seconds", name] > 0
            assert found["unseen_objects", name] >= 0
        stages = {key[1] for key in found if key[0] == "unseen_stage_seconds_count"}
        assert {"motion", "network", "select", "compose", "publish"} <= stages
        assert found["unseen_subscribers",] == 1
        assert found["unseen_ready",] == 1
        model = engine.session.report.model
        assert found["unseen_model_generation",] == model["generation"]
        assert found["unseen_model_info", model["hash"], model["name"]] == 1
        assert found["process_resident_memory_bytes",] > 2**20
        assert found["unseen_control_requests_total", "malformed"] == 1

        # Series are gone with their source, and dropped frames have a cause.
        engine.session.remove_source("door")
        engine.session.pause("cam")
        captured = next(source.captured for source in engine.session.sources())
        assert eventually(lambda: engine.session.sources()[0].captured > captured + 2)
        found = samples(read(server.port, "/metrics")[1])
        assert not [key for key in found if "door" in key]
        assert found["unseen_source_paused", "cam"] == 1
        assert sum(value for key, value in found.items() if key[0] == "unseen_dropped_total" and "cam" in key) >= 1


def test_alive_and_ready_follow_the_engine(motion_model: Path, monkeypatch):
    monkeypatch.setattr(health_module, "_ANSWER_WITHIN_S", 2.0)
    monkeypatch.setattr(health_module, "_REMEMBERED_S", 0.0)
    health = Health()
    with MetricsServer("127.0.0.1:0", health) as server:
        assert read(server.port, "/healthz") == (200, '{"alive": true}\n')
        assert read(server.port, "/readyz") == (503, '{"ready": false, "problem": "starting"}\n')
        assert read(server.port, "/metrics") == (200, "")
        with running_engine(motion_model, "cam") as engine:
            health.status = engine.status
            assert eventually(lambda: read(server.port, "/healthz")[0] == 200)
            assert read(server.port, "/readyz") == (200, '{"ready": true, "sources": {"cam": "live"}}\n')
            hang, hangs = threading.Event(), threading.Event()

            def block() -> None:
                hangs.set()
                hang.wait(300)

            thread = threading.Thread(target=lambda: engine.session.call(block, 300))
            thread.start()
            assert hangs.wait(60)
            code, text = read(server.port, "/healthz")
            assert code == 503
            assert "did not answer" in json.loads(text)["problem"]
            hang.set()
            thread.join(60)
            assert eventually(lambda: read(server.port, "/healthz")[0] == 200)
        assert read(server.port, "/readyz")[0] == 503
        with pytest.raises(EngineError):
            engine.session.call(lambda: None)
        assert read(server.port, "/healthz")[0] == 200


def test_passwords_are_in_no_answer(motion_model: Path):
    unreachable = "secret=rtsp://admin:hunter2@127.0.0.1:9/stream?token=hunter2"
    with (
        running_engine(motion_model, "cam", unreachable) as engine,
        MetricsServer("0", Health(engine.status)) as server,
    ):
        server.metrics = Metrics(engine.status)
        answers = [read(server.port, path)[1] for path in ("/metrics", "/healthz", "/readyz")]
        answers.append(json.dumps(engine.status.to_dict()))
    assert all('"secret"' in answer for answer in (answers[0], answers[2]))
    assert "rtsp://admin:***@127.0.0.1" in answers[-1]
    assert not [answer for answer in answers if "hunter2" in answer]


def test_other_paths_and_methods_are_refused_and_idle_clients_in_nobodys_way():
    with MetricsServer("0", Health()) as server:
        assert read(server.port, "/")[0] == 404
        assert read(server.port, "/metrics/../../etc/passwd")[0] == 404
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/metrics", body="x")
        assert connection.getresponse().status == 501
        connection.close()
        connection.request("HEAD", "/healthz")
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (200, b"")
        assert "Python" not in reply.headers["Server"]
        connection.close()
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(8)]
        assert read(server.port, "/healthz")[0] == 200
        for one in idle:
            one.close()


def test_more_connections_than_places_are_closed_at_once():
    with MetricsServer("0", Health()) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(20)]
        # Whoever came too late reads the end of the connection, long before an idle one is given up.
        assert eventually(lambda: sum(_is_closed(one) for one in idle) == 4, 4)
        for one in idle:
            one.close()
        assert eventually(lambda: _answers(server.port))


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def _answers(port: int) -> bool:
    try:
        return read(port, "/healthz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize(
    ("text", "insecure", "expected"),
    [
        ("9100", False, ("127.0.0.1", 9100)),
        (":9100", False, ("127.0.0.1", 9100)),
        ("localhost:0", False, ("localhost", 0)),
        ("[::1]:9100", False, ("::1", 9100)),
        ("0.0.0.0:9100", True, ("0.0.0.0", 9100)),
    ],
)
def test_addresses(text, insecure, expected):
    assert parse_address(text, insecure) == expected


@pytest.mark.parametrize("text", ["", "x", "70000", "-1", "127.0.0.1", "0.0.0.0:9100", "example.org:9100", "[::]:9100"])
def test_addresses_that_cannot_be_used_are_usage_errors_of_one_line(text):
    with pytest.raises(UsageError, match=r"^--metrics [^\n]*$"):
        parse_address(text)


def test_a_port_in_use_is_a_usage_error():
    with MetricsServer("0", Health()) as server, pytest.raises(UsageError, match="cannot be bound"):
        MetricsServer(str(server.port), Health())
