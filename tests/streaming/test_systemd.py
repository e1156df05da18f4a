"""What the service manager hears, on a real datagram socket."""

import os
import socket
from pathlib import Path

import pytest

from streaming.health import Health
from streaming.systemd import ServiceNotifier
from tests.streaming.scenes import eventually


class Engine:
    """A health whose answers the test decides."""

    def __init__(self) -> None:
        self.status = self
        self.session = self
        self.running = False
        self.trouble = ""

    def problem(self) -> str:
        return self.trouble


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path):
    """(socket that hears, what NOTIFY_SOCKET says)."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(20)
        heard.bind(path if request.param == "path" else "\0" + path)
        yield heard, path if request.param == "path" else "@" + path


def test_ready_then_alive_then_silent_while_it_hangs_then_stopping(manager):
    heard, address = manager
    engine = Engine()
    with ServiceNotifier(engine, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "40000"}):  # type: ignore[arg-type]
        heard.settimeout(0.5)
        with pytest.raises(TimeoutError):
            heard.recv(100)  # not before it runs
        heard.settimeout(20)
        engine.running = True
        assert heard.recv(100) == b"READY=1"
        assert [heard.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        engine.trouble = "the engine did not answer"
        heard.settimeout(0.3)
        assert eventually(lambda: not _hears(heard), 20)
        assert not _hears(heard)
        engine.trouble = ""
        heard.settimeout(20)
        assert heard.recv(100) == b"WATCHDOG=1"
    messages = [heard.recv(100)]
    while messages[-1] != b"STOPPING=1":
        messages.append(heard.recv(100))


def _hears(heard: socket.socket) -> bool:
    try:
        return bool(heard.recv(100))
    except TimeoutError:
        return False


def test_a_watchdog_for_another_process_is_not_ours(manager):
    heard, address = manager
    engine = Engine()
    engine.running = True
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid() + 1)}
    with ServiceNotifier(engine, environment):  # type: ignore[arg-type]
        assert heard.recv(100) == b"READY=1"
        heard.settimeout(0.3)
        assert not _hears(heard)
        heard.settimeout(20)
    assert heard.recv(100) == b"STOPPING=1"


def test_without_a_service_manager_nothing_happens():
    with ServiceNotifier(Health(), {}) as notifier:
        assert not notifier._thread.is_alive()
