"""The engine as a process of its own, started, killed and started again."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from engine.errors import SourceError

_END_S = 30.0
_KEPT_LINES = 200


class EngineProcess:
    """`python -m engine.run` with live sources.

    Args:
        sources: each as NAME=URI.
        endpoint: where it publishes.
        options: more of its command line.
    """

    def __init__(self, sources: Sequence[str], endpoint: str, options: Sequence[str] = ()) -> None:
        self._command = [sys.executable, "-m", "engine.run", "--publish", endpoint, *options]
        for source in sources:
            self._command += ["--source", source]
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> "EngineProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it (again)."""
        self._process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=Path.cwd()
        )
        # Whatever it says must be read, or it would wait for room to say more.
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Raises SourceError when it has ended by itself, with its last line."""
        if self._process is not None and self._process.poll() is not None:
            if self._reader is not None:
                self._reader.join(_END_S)
            last = self.log[-1] if self.log else "it said nothing"
            raise SourceError(f"the engine ended with exit code {self._process.returncode}: {last}")

    def kill(self) -> None:
        """End it without warning, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        """End it as Ctrl-C does: the last masks and the store are written."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(_END_S)
        self._reader.join(_END_S)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line.rstrip())
                del self.log[:-_KEPT_LINES]
