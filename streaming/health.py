"""Alive and ready: what supervisors ask before they restart a process or send work to it."""

import threading
import time
from typing import Any

from engine.errors import EngineError
from streaming.status import EngineStatus

_ANSWER_WITHIN_S = 4.0
"""A frame in hand takes milliseconds, on the slowest machine a second: later than this the engine hangs."""
_REMEMBERED_S = 1.0
"""However often somebody asks, the engine is interrupted once a second at most."""


class Health:
    """Answers for `/healthz`, `/readyz` and the service manager; safe from any thread.

    Args:
        status: of the running session; set it once there is one. Until then the process is alive and not ready.
    """

    def __init__(self, status: EngineStatus | None = None) -> None:
        self.status = status
        self._lock = threading.Lock()
        self._checked_s = float("-inf")
        self._problem = ""

    def problem(self) -> str:
        """Why the engine counts as dead, empty while it is alive: its thread must answer between two frames."""
        with self._lock:
            status = self.status
            if status is None or not status.session.running:
                return ""  # starting or ending: a process that fails at that exits by itself
            if time.monotonic() - self._checked_s > _REMEMBERED_S:
                try:
                    status.session.call(lambda: None, _ANSWER_WITHIN_S)
                    self._problem = ""
                except EngineError as error:
                    self._problem = str(error) if status.session.running else ""
                self._checked_s = time.monotonic()
            return self._problem

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        """(ok, what to say) of `/healthz`: the process and its engine thread are alive."""
        problem = self.problem()
        return not problem, {"alive": not problem, **({"problem": problem} if problem else {})}

    def readyz(self) -> tuple[bool, dict[str, Any]]:
        """(ok, what to say) of `/readyz`: a model runs and at least one source is live."""
        status = self.status
        if status is None:
            return False, {"ready": False, "problem": "starting"}
        states = {source.name: source.state for source in status.session.sources()}
        return status.ready, {"ready": status.ready, "sources": states}
