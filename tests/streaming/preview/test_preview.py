"""The page over a real session: what is clicked happens to the engine, and the engine shows it."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.config import EngineConfig
from engine.perceive.network import Network
from streaming.lane_factory import LaneFactory
from streaming.preview.message import unpack
from streaming.preview.preview import Preview
from streaming.report import Report
from streaming.session import Session
from tests.streaming.scenes import eventually

URI = "room=demo://?live=1&frames=0&size=240x428&static_camera=1&fps=10"


class Page:
    """Asks as the page does."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self._number = 0

    def _ask(self, method: str, path: str, body: str | None = None, **headers: str) -> bytes:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().read()
        finally:
            connection.close()

    def next(self) -> dict[str, Any]:
        """The newest state; it has a "frame" when there is a new one."""
        state = unpack(self._ask("GET", f"/feed?viewer=test&source=room&after={self._number}"))[0]
        self._number = state.get("number", self._number)
        return state

    def frame(self) -> dict[str, Any]:
        """The next new frame."""
        frames: list[dict[str, Any]] = []
        assert eventually(lambda: frames or frames.extend(filter(None, [self.next().get("frame")])))
        return frames[0]

    def do(self, op: str, **details: object) -> dict[str, Any]:
        body = json.dumps({"op": op, "source": "room", **details})
        headers = {"Origin": f"http://{self._host}", "Content-Type": "application/json"}
        return json.loads(self._ask("POST", "/do", body, **headers))


@pytest.fixture
def page(motion_model: Path) -> Iterator[Page]:
    network = Network(motion_model)
    factory = LaneFactory(EngineConfig(), network)
    report = Report({"name": "test", "hash": "0", "generation": 1})
    session = Session([factory.open(URI)], report, open_lane=factory.open)
    thread = threading.Thread(target=session.run)
    with Preview(session, port=0) as preview:
        thread.start()
        yield Page(preview.url)
    session.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_what_is_pointed_at_is_followed_until_let_go(page: Page) -> None:
    assert eventually(lambda: page.frame()["objects"])
    identity = page.do("track", id=None, x=214, y=120)["result"]
    assert eventually(lambda: [item["id"] for item in page.frame()["followed"]] == [identity])
    assert page.do("forget", id=identity) == {"result": None}
    assert eventually(lambda: page.frame()["followed"] == [])
    assert "not followed" in page.do("forget", id=identity)["error"]


def test_an_object_seen_keeps_being_seen_under_its_new_number(page: Page) -> None:
    assert eventually(lambda: page.frame()["objects"])
    largest = max(page.frame()["objects"], key=lambda item: item["area"])
    # Where it was, should it be called something else by now.
    x, y = (sum(largest["box"][side::2]) // 2 for side in (0, 1))
    identity = page.do("track", id=largest["id"], x=x, y=y)["result"]
    assert identity > largest["id"]

    def seen() -> bool:
        return any(item["id"] == identity and item["followed"] for item in page.frame()["objects"])

    assert eventually(seen)


def test_a_pause_holds_the_frames_and_says_so(page: Page) -> None:
    page.frame()
    page.do("pause")
    assert eventually(lambda: page.next()["sources"][0]["state"] == "paused")
    assert eventually(lambda: "frame" not in page.next())
    page.do("resume")
    assert page.frame()
    assert eventually(lambda: page.next()["sources"][0]["state"] == "live")


def test_an_unknown_source_is_refused_by_the_engine(page: Page) -> None:
    page.frame()
    page.do("pause")
    assert "nowhere" in page.do("resume", source="nowhere")["error"]
