"""Tell systemd that the engine is ready, and that it still lives (`Type=notify`, `WatchdogSec=`).

The protocol of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names. Without it nothing happens.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Mapping

from streaming.health import Health

_LOOK_S = 0.2
"""How often a start is looked at, until the engine is ready."""


class ServiceNotifier:
    """A thread that says `READY=1` once the engine runs and `WATCHDOG=1` as long as it is healthy.

    Args:
        health: who knows.
        environment: of the process, `os.environ` by default.
    """

    def __init__(self, health: Health, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        # Twice as often as needed, as the manual advises; it matters to the process it was set for only.
        usec = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._period_s = int(usec) / 2e6 if usec.isdigit() and int(usec) and mine else None
        self._health = health
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)
        if self._address:
            self._thread.start()

    def close(self) -> None:
        """Say that the engine is stopping."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._say("STOPPING=1")

    def __enter__(self) -> "ServiceNotifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (status := self._health.status) is None or not status.session.running:
            # A first start compiles for a while; the watchdog counts from READY on.
            if self._stop.wait(_LOOK_S):
                return
        self._say("READY=1")
        while not self._stop.wait(self._period_s):
            if not self._health.problem():
                self._say("WATCHDOG=1")

    def _say(self, message: str) -> None:
        # '@' stands for the first byte of an abstract address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), address)
