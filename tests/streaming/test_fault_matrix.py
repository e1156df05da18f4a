"""What real servers do wrong, and how soon frames are back: motion JPEG over HTTP, RTSP by gst-rtsp-server."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.fault_server import MjpegServer, picture
from engine.config import EngineConfig
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from streaming.feed import Feed, Timeouts
from streaming.lane import Lane
from streaming.report import Report
from streaming.session import Session
from streaming.sources import open_source
from tests.streaming.test_feed import Follower, following

TIMEOUTS = Timeouts(1.0, 1.0)
SYSTEM_PYTHON = "/usr/bin/python3"
PATIENT = Timeouts(20.0, 30.0)
"""Where the test says that a connection is never lost: a busy machine holds up everything for seconds."""


def make_feed(uri: str, name: str = "cam", timeouts: Timeouts = TIMEOUTS) -> Feed:
    opener = partial(open_source, uri, name=name, read_timeout_s=timeouts.read_s)
    # A busy machine takes its time to open the first connection; the others must not hang for long.
    return Feed(opener(open_timeout_s=20.0), every=False, reopen=partial(opener, open_timeout_s=5.0), timeouts=timeouts)


class RtspProcess:
    """rtsp_server.py as a process that can be killed, stopped and started again, on the port it chose first."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    @property
    def uri(self) -> str:
        return f"rtsp://viewer:hunter2@127.0.0.1:{self.port}/ball"

    def start(self) -> None:
        command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told, _, port = self.process.stdout.readline().partition(" ")
        assert told == "ready"
        self.port = int(port)

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


class HttpCamera(MjpegServer):
    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False


def rtsp_is_here() -> bool:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer, Gst;"
    code += "Gst.init(None); assert Gst.ElementFactory.find('rtpjpegpay') and Gst.ElementFactory.find('jpegenc')"
    if not os.path.exists(SYSTEM_PYTHON):
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture(params=["http", "rtsp"])
def camera(request: pytest.FixtureRequest) -> Iterator[HttpCamera | RtspProcess]:
    if request.param == "rtsp" and not rtsp_is_here():
        pytest.skip("needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good")
    server: HttpCamera | RtspProcess = HttpCamera() if request.param == "http" else RtspProcess()
    yield server
    server.close()


@pytest.fixture
def http_camera() -> Iterator[HttpCamera]:
    server = HttpCamera()
    yield server
    server.close()


def wait_for_frames(follower: Follower, count: int = 5) -> None:
    goal = len(follower.taken) + count
    follower.wait(lambda: len(follower.taken) >= goal)


def wait_until_it_is_lost(follower: Follower) -> None:
    """The state itself may be over before somebody looks."""
    follower.wait(lambda: "reconnecting" in follower.states)


def wait_until_it_is_back(follower: Follower) -> None:
    follower.wait(lambda: follower.feed.state == "live" and follower.feed.problem == "")
    # The feed counts before the follower has noted what it took.
    follower.wait(lambda: follower.breaks.count("new") == follower.feed.reconnects >= 1)
    indices = [index for index, _ in follower.taken]
    assert indices == sorted(set(indices))


def test_a_server_that_is_killed_and_started_again(camera: HttpCamera | RtspProcess) -> None:
    with following(make_feed(camera.uri)) as follower:
        wait_for_frames(follower)
        camera.kill()
        follower.wait_for_state("reconnecting")
        assert "hunter2" not in follower.feed.problem
        follower.wait(lambda: follower.feed._backoff.attempts >= 2)  # it is tried while nobody listens
        camera.start()
        wait_until_it_is_back(follower)


def test_a_server_that_freezes_accepts_and_sends_nothing(camera: HttpCamera | RtspProcess) -> None:
    with following(make_feed(camera.uri)) as follower:
        wait_for_frames(follower)
        camera.freeze()
        # The read gives up by itself, or the watchdog leaves it behind.
        wait_until_it_is_lost(follower)
        # An attempt is under way that is accepted and not answered.
        follower.wait(lambda: follower.feed._connection is not None)
        camera.thaw()
        wait_until_it_is_back(follower)


def test_a_connection_cut_in_the_middle_of_a_frame(http_camera: HttpCamera) -> None:
    with following(make_feed(http_camera.uri)) as follower:
        wait_for_frames(follower)
        http_camera.cut_mid_frame()
        wait_until_it_is_lost(follower)
        wait_until_it_is_back(follower)


def test_another_picture_size_is_no_interruption_and_true_after_the_next_connection(http_camera: HttpCamera) -> None:
    with following(make_feed(http_camera.uri, timeouts=PATIENT)) as follower:
        wait_for_frames(follower)
        http_camera.size = (180, 320)
        wait_for_frames(follower, 10)
        # The decoder scales to the size the connection began with.
        assert follower.feed.size == (120, 160)
        assert "reconnecting" not in follower.states
        http_camera.cut_mid_frame()
        follower.wait(lambda: follower.feed.size == (180, 320))


def test_corrupt_pictures_are_no_interruption(http_camera: HttpCamera) -> None:
    with following(make_feed(http_camera.uri, timeouts=PATIENT)) as follower:
        wait_for_frames(follower)
        http_camera.corrupt = True
        wait_for_frames(follower, 15)
        http_camera.corrupt = False
        wait_for_frames(follower)
        assert "reconnecting" not in follower.states


@pytest.fixture(scope="module")
def broken_stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """MPEG-TS of 60 frames; in the middle third, packets are overwritten, lost and doubled."""
    path = tmp_path_factory.mktemp("stream") / "clip.ts"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mpg2"), 25.0, (160, 120))
    for index in range(60):
        writer.write(picture(index))
    writer.release()
    packets = [path.read_bytes()[i : i + 188] for i in range(0, path.stat().st_size, 188)]
    rng = np.random.default_rng(0)
    for position in range(len(packets) // 3, 2 * len(packets) // 3):
        fault = rng.integers(0, 8)
        if fault == 0:
            packets[position] = packets[position][:4] + rng.bytes(len(packets[position]) - 4)
        elif fault == 1:
            packets[position] = b""
        elif fault == 2:
            packets[position] *= 2
        elif fault == 3:
            packets[position] = rng.bytes(188)
    return b"".join(packets)


def test_corrupt_packets_cost_frames_and_no_more(broken_stream: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(broken_stream)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        uri = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with following(make_feed(uri, timeouts=PATIENT)) as follower:
            follower.wait(lambda: follower.feed.reconnects >= 2)
            # Two connections are over; two thirds of what was sent on each were whole.
            assert follower.feed.captured > 2 * 25
        indices = [index for index, _ in follower.taken]
        assert indices == sorted(set(indices))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_other_sources_do_not_notice(http_camera: HttpCamera, motion_model: Path) -> None:
    other = HttpCamera()
    network = Network(motion_model)
    # A busy machine may well hold up both for half a second: the other one has patience.
    feeds = {
        "broken": make_feed(http_camera.uri, "broken"),
        "other": make_feed(other.uri, "other", PATIENT),
    }
    states: list[str] = []
    broken_states: list[str] = []
    lanes = [Lane(feed, Pipeline(EngineConfig(), network)) for feed in feeds.values()]
    session = Session(lanes, Report({"name": "test", "hash": "0", "generation": 1}))
    feeds["other"].on_state = states.append
    feeds["broken"].on_state = broken_states.append
    runner = threading.Thread(target=session.run)
    runner.start()

    def wait(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline_s, session.sources()
            time.sleep(0.01)

    try:
        for fault, mend in (
            (http_camera.kill, http_camera.start),
            (http_camera.freeze, http_camera.thaw),
            (http_camera.cut_mid_frame, lambda: None),
        ):
            wait(lambda: feeds["broken"].state == "live" and all(lane.frames > 5 for lane in lanes))
            broken_states.clear()
            fault()
            wait(lambda: "reconnecting" in broken_states)
            before = lanes[1].frames
            wait(lambda count=before: lanes[1].frames > count + 5)  # type: ignore[misc]
            mend()
            before = lanes[0].frames
            wait(lambda count=before: lanes[0].frames > count + 3)  # type: ignore[misc]
        assert "reconnecting" not in states
        assert feeds["other"].reconnects == 0
    finally:
        session.stop()
        runner.join(60)
        other.close()
    assert not runner.is_alive()
    for status in session.sources():
        assert status.captured == status.frames + sum(status.dropped.values()), status
        assert status.state == "ended"
