"""The web server over real connections: the page, its doors, its limits."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from engine.errors import UsageError
from streaming.overlay import draw_overlay
from streaming.preview import viewers
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.message import unpack
from streaming.preview.server import PreviewServer, page_files
from streaming.preview.viewers import MOST_VIEWERS
from tests.streaming.preview.stage import Remembering, frame_done
from tests.streaming.scenes import eventually


@dataclass
class Site:
    """A served page, and requests to it."""

    server: PreviewServer
    view: LiveView
    engine: Remembering

    @property
    def port(self) -> int:
        return int(self.server.url.rsplit(":", 1)[1].strip("/"))

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def do(self, request: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        fields = {"Origin": self.server.url.rstrip("/"), "Content_Type": "application/json", **headers}
        status, _, body = self.ask("POST", "/do", json.dumps(request).encode(), **fields)
        return status, json.loads(body)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(viewers, "ABSENT_AFTER_S", 600.0)  # a busy machine may not ask for seconds
    view, engine = LiveView(lambda: [{"name": "cam", "state": "live"}]), Remembering()
    server = PreviewServer(view, Actions(engine, view), port=0)
    yield Site(server, view, engine)
    view.close()
    server.close()


def test_the_page_is_small_and_needs_nothing_from_elsewhere(site: Site) -> None:
    files = page_files()
    assert sum(map(len, files.values())) < 60_000
    for name, content in files.items():
        text = content.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            name
        )
        links = re.findall(r"https?://[^\s\"'<>)]+", text)
        assert set(links) <= {"http://www.w3.org/2000/svg"}, name
        status, _, body = site.ask("GET", f"/{name}")
        assert (status, body) == (200, content)
    assert not re.search(r"\sstyle=|\son\w+=", files["index.html"].decode())


def test_the_browser_is_told_to_trust_nothing_else(site: Site) -> None:
    status, headers, body = site.ask("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body == page_files()["index.html"]
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


def test_frames_come_over_the_wire(site: Site) -> None:
    site.view.observe(frame_done(9))
    frames: list[dict[str, Any]] = []

    def arrived() -> bool:
        status, headers, body = site.ask("GET", "/feed?viewer=a1&source=cam&after=0")
        assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
        frames.extend(filter(None, [unpack(body)[0].get("frame")]))
        return bool(frames)

    assert eventually(arrived)
    assert frames[0]["index"] == 9


@pytest.mark.parametrize("path", ["/", "/feed?viewer=a&source=", "/snapshots/x.png", "/nothing"])
def test_a_rebound_name_gets_nothing(site: Site, path: str) -> None:
    status, _, body = site.ask("GET", path, Host="evil.example:8080")
    assert status == 421
    assert set(json.loads(body)) == {"error"}


def test_another_sites_page_sees_nothing(site: Site) -> None:
    site.view.observe(frame_done())
    name = site.do({"op": "snapshot", "source": "cam"})[1]["result"]["name"]
    for path in ("/feed?viewer=a&source=cam", f"/snapshots/{name}.png"):
        assert site.ask("GET", path, Sec_Fetch_Site="cross-site")[0] == 403
        assert site.ask("GET", path, Sec_Fetch_Site="same-origin")[0] == 200


def test_another_sites_page_changes_nothing(site: Site) -> None:
    request = {"op": "pause", "source": "cam"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert site.do(request, **headers)[0] in (403, 421), headers
    assert site.ask("POST", "/do", b"{}", Content_Type="application/json")[0] == 403
    assert site.engine.asked == []
    assert site.do(request) == (200, {"result": None})
    assert site.engine.asked == [("pause", "cam")]


def test_an_object_is_followed_by_its_mask_where_it_is_now(site: Site) -> None:
    done = frame_done(4)
    site.view.observe(done)
    status, answer = site.do({"op": "track", "source": "cam", "id": 3, "x": 0, "y": 0})
    assert (status, answer) == (200, {"result": 71})
    ((op, source, mask, point),) = site.engine.asked
    assert (op, source, point) == ("track", "cam", None)
    assert np.array_equal(mask, done.scenes[0].labels == 1)


def test_what_is_not_marked_is_followed_from_a_point(site: Site) -> None:
    site.view.observe(frame_done(4))
    assert site.do({"op": "track", "source": "cam", "id": None, "x": 7, "y": 110})[0] == 200
    # An object that is gone by now leaves its place.
    assert site.do({"op": "track", "source": "cam", "id": 12, "x": 8, "y": 9})[0] == 200
    assert site.engine.asked == [("track", "cam", None, (7.0, 110.0)), ("track", "cam", None, (8.0, 9.0))]


def test_forget_pause_resume(site: Site) -> None:
    for request in ({"op": "forget", "id": 71}, {"op": "pause"}, {"op": "resume"}):
        assert site.do({"source": "cam", **request}) == (200, {"result": None})
    assert site.engine.asked == [("forget", "cam", 71), ("pause", "cam"), ("resume", "cam")]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ([], "op"),
        ({}, "op"),
        ({"op": "shutdown", "source": "cam"}, "unknown"),
        ({"op": {}, "source": "cam"}, "unknown"),
        ({"op": "pause"}, "source"),
        ({"op": "pause", "source": 3}, "source"),
        ({"op": "track", "source": "nowhere", "x": 1, "y": 1}, "no frame"),
        ({"op": "track", "source": "cam"}, "x"),
        ({"op": "track", "source": "cam", "x": 160, "y": 1}, "outside"),
        ({"op": "track", "source": "cam", "x": -1, "y": 1}, "outside"),
        ({"op": "track", "source": "cam", "x": True, "y": 1}, "x"),
        ({"op": "track", "source": "cam", "x": 1, "y": "1"}, "y"),
        ({"op": "forget", "source": "cam"}, "id"),
        ({"op": "forget", "source": "cam", "id": True}, "id"),
        ({"op": "snapshot", "source": "nowhere"}, "no frame"),
    ],
)
def test_what_cannot_be_done_is_answered_in_one_line(site: Site, request_: Any, says: str) -> None:
    site.view.observe(frame_done())
    status, answer = site.do(request_)
    assert status == 409
    assert says in answer["error"]
    assert "\n" not in answer["error"]
    assert site.engine.asked == []


def test_what_the_engine_refuses_reaches_the_page(site: Site) -> None:
    site.engine.refusal = "track: 8 objects are followed already, the most; untrack one first"
    assert site.do({"op": "forget", "source": "cam", "id": 1}) == (409, {"error": site.engine.refusal})


def test_what_goes_wrong_inside_is_an_answer_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.engine.failure = ValueError("shapes do not match")
    assert site.do({"op": "pause", "source": "cam"}) == (500, {"error": "the engine failed: ValueError"})
    assert "shapes do not match" in caplog.text
    site.engine.failure = None
    assert site.do({"op": "pause", "source": "cam"})[0] == 200


def test_bad_requests_are_refused_and_the_server_lives(site: Site) -> None:
    own = {"Origin": site.server.url.rstrip("/"), "Content_Type": "application/json"}
    assert site.ask("POST", "/do", b"not json", **own)[0] == 400
    assert site.ask("POST", "/do", b"[" * 4000, **own)[0] == 400
    assert site.ask("POST", "/do", b" " * 5000, **own)[0] == 413
    assert site.ask("POST", "/elsewhere", b"{}", **own)[0] == 404
    assert site.ask("GET", "/../../etc/passwd")[0] == 404
    assert site.ask("GET", "/page/../server.py")[0] == 404
    assert site.ask("GET", "/feed?viewer=%00&source=cam")[0] == 400
    assert site.ask("GET", f"/feed?viewer={'v' * 33}")[0] == 400
    assert site.ask("GET", f"/feed?viewer=a&after={'9' * 400}")[0] == 200
    assert site.ask("BREW", "/")[0] == 501
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n")
        assert b"400" in raw.recv(200)
    assert site.ask("GET", "/")[0] == 200


def test_a_snapshot_is_one_frame_as_picture_and_masks(site: Site) -> None:
    done = frame_done(12)
    site.view.observe(done)
    taken = site.do({"op": "snapshot", "source": "cam"})[1]["result"]
    site.view.observe(frame_done(13))
    assert (taken["name"], taken["objects"]) == ("cam-000012", 2)
    status, headers, body = site.ask("GET", "/snapshots/cam-000012.png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert 'filename="cam-000012.png"' in headers["Content-Disposition"]
    scene = done.scenes[0]
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture, draw_overlay(done.frame.image, scene.labels, scene.objects, scale=1.0))
    described = json.loads(site.ask("GET", "/snapshots/cam-000012.json")[2])
    values, lengths = np.array(described["label_runs"]).T
    assert np.array_equal(np.repeat(values, lengths).reshape(described["size"]), scene.labels)
    assert (described["frame"], described["t_capture_ns"]) == (12, done.frame.t_capture_ns)
    assert [item["id"] for item in described["objects"]] == [3, 70000]


def test_only_the_latest_snapshots_are_kept(site: Site) -> None:
    for index in range(6):
        site.view.observe(frame_done(index, "a/../b"))
        assert site.do({"op": "snapshot", "source": "a/../b"})[1]["result"]["name"] == f"a-b-{index:06d}"
    assert site.ask("GET", "/snapshots/a-b-000001.png")[0] == 404
    assert site.ask("GET", "/snapshots/a-b-000005.png")[0] == 200
    assert site.ask("GET", "/snapshots/a-b-000005.exe")[0] == 404


def test_the_ninth_viewer_is_told_so(site: Site) -> None:
    site.view.observe(frame_done())
    for number in range(MOST_VIEWERS):
        assert site.ask("GET", f"/feed?viewer=v{number}&source=cam")[0] == 200
    status, _, body = site.ask("GET", "/feed?viewer=late&source=cam")
    assert status == 503
    assert "8 viewers" in json.loads(body)["error"]


def test_connections_are_bounded_and_a_full_server_recovers(site: Site) -> None:
    opened = []
    try:
        for _ in range(80):
            opened.append(socket.create_connection(("127.0.0.1", site.port), timeout=60))
        # Those above the limit are closed at once, before they sent anything.
        assert eventually(lambda: len(site.server._server._connections) == 64)
        assert opened[-1].recv(1) == b""
    finally:
        for connection in opened:
            connection.close()
    assert eventually(lambda: not site.server._server._connections)
    assert site.ask("GET", "/")[0] == 200


def test_viewers_that_never_read_do_not_hold_up_the_engine(site: Site) -> None:
    stuck = []
    try:
        for number in range(MOST_VIEWERS):
            connection = socket.create_connection(("127.0.0.1", site.port), timeout=60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            # Far more than the answers' buffers hold, none of it read.
            request = f"GET /feed?viewer=v{number}&source=cam&after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(request.encode() * 200)
            stuck.append(connection)
        observed: list[int] = []

        def observe() -> None:
            for index in range(30):
                site.view.observe(frame_done(index, size=(480, 640)))
                observed.append(index)

        engine = threading.Thread(target=observe, daemon=True)
        engine.start()
        engine.join(60)
        assert observed == list(range(30))
    finally:
        for connection in stuck:
            connection.close()


def test_closing_cuts_viewers_off_at_once(site: Site) -> None:
    connection = socket.create_connection(("127.0.0.1", site.port), timeout=60)
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        site.server.close()
        while connection.recv(65536):
            pass
    finally:
        connection.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", site.port), timeout=5)
    site.server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "robot.example"])
def test_other_machines_are_let_in_only_when_asked_for(site: Site, host: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        PreviewServer(site.view, Actions(site.engine, site.view), host=host, port=0)


def test_insecure_opens_the_door(site: Site) -> None:
    other = PreviewServer(site.view, Actions(site.engine, site.view), host="0.0.0.0", port=0, insecure=True)
    try:
        assert socket.gethostname() in other.url
        port = int(other.url.rsplit(":", 1)[1].strip("/"))
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
    finally:
        other.close()


@pytest.mark.parametrize(("port", "host", "says"), [(70000, "127.0.0.1", "65535"), (-1, "127.0.0.1", "65535")])
def test_impossible_ports_are_refused(site: Site, port: int, host: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        PreviewServer(site.view, Actions(site.engine, site.view), host=host, port=port)


def test_a_port_in_use_is_named(site: Site) -> None:
    with pytest.raises(UsageError, match=f"{site.port}.*in use.*another port"):
        PreviewServer(site.view, Actions(site.engine, site.view), port=site.port)
