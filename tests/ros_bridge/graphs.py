"""ROS graphs on this machine only, and programs on them: for the tests and for `benchmarks.ros`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.ports import free_port

PEER = Path(__file__).with_name("peer.py")
REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
ROS1_PACKAGES = "python3-rospy python3-roslaunch python3-rosmaster python3-sensor-msgs python3-diagnostic-msgs"
PATIENCE_S = 120.0
"""How long a process may take to start on a busy machine; tests end as soon as what they wait for is there."""

LOOPBACK_DDS = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>20</MaxAutoParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""


class Program:
    """A process whose standard output, line by line, is JSON; what it says on standard error is kept."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.lines: list[dict] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=REPOSITORY,
        )
        self._threads = [
            threading.Thread(target=self._read, args=(stream, keep), daemon=True)
            for stream, keep in ((self.process.stdout, self._keep_line), (self.process.stderr, self._keep_error))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream, keep) -> None:
        for line in stream:
            with self._changed:
                keep(line.decode())
                self._changed.notify_all()

    def _keep_line(self, line: str) -> None:
        if line.startswith("{"):
            self.lines.append(json.loads(line))

    def _keep_error(self, line: str) -> None:
        self.errors.append(line)

    def about(self, topic: str) -> list[dict]:
        """Messages of one topic so far."""
        with self._changed:
            return [line for line in self.lines if line.get("topic") == topic]

    def until(self, condition: Callable[[list[dict]], object], timeout_s: float = PATIENCE_S) -> object:
        """Wait until `condition(lines)` is true and return its value; fail with what the process said."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not (value := condition(self.lines)):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self.process.poll() is not None:
                    said = "".join(self.errors[-20:])
                    raise AssertionError(f"{self.process.args} (exit {self.process.poll()}): {self.lines[-3:]} {said}")
                self._changed.wait(min(left_s, 0.2))
            return value

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        return code


def have(count: int, *topics: str) -> Callable[[list[dict]], bool]:
    """Condition: at least `count` messages of each topic."""
    return lambda lines: all(sum(line.get("topic") == topic for line in lines) >= count for topic in topics)


class Graph:
    """One kind of ROS graph on loopback: starts bridges and peers that find each other there."""

    def __init__(self, backend: str, environment: dict[str, str], bridge: list[str], peer: list[str]) -> None:
        self.backend = backend
        self.environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
        self.bridge_options, self.peer_options = bridge, peer
        self.programs: list[Program] = []

    def bridge(self, endpoint: str, *options: str) -> Program:
        """A bridge process, as a user starts it."""
        command = [sys.executable, "-m", "ros_bridge", "--backend", self.backend, "--endpoint", endpoint]
        return self._start([*command, *self.bridge_options, *options])

    def listen(self, namespace: str, *options: str) -> Program:
        """A foreign subscriber; returns when it listens."""
        program = self._start([*self._peer("listen", namespace), *options])
        program.until(lambda lines: any("ready" in line for line in lines))
        return program

    def camera(self, topic: str, *options: str) -> Program:
        """A foreign camera; it begins when somebody reads it."""
        return self._start([*self._peer("camera", topic), *options])

    def _peer(self, what: str, name: str) -> list[str]:
        python = SYSTEM_PYTHON if self.backend == "rospy" else sys.executable
        return [python, str(PEER), what, self.backend, name, *self.peer_options]

    def _start(self, command: list[str]) -> Program:
        self.programs.append(Program(command, self.environment))
        return self.programs[-1]

    def close(self) -> None:
        left = [program for program in self.programs if not program.process.stdout.closed]
        for program in left:
            program.process.terminate()  # all at once, then wait
        for program in left:
            program.stop()


def ros1_missing() -> str | None:
    """What to install for ROS 1, None when it is there."""
    present = shutil.which("roscore") and Path("/usr/lib/python3/dist-packages/rospy").is_dir()
    return None if present else f"needs ROS 1: apt-get install {ROS1_PACKAGES}"


def ros1_environment(uri: str, home: Path) -> dict[str, str]:
    return {"ROS_MASTER_URI": uri, "ROS_IP": "127.0.0.1", "ROS_HOME": str(home)}


def dds_graph() -> Graph:
    """A DDS domain of its own."""
    domain = str(1 + free_port() % 200)
    return Graph("cyclonedds", {"CYCLONEDDS_URI": LOOPBACK_DDS}, ["--domain", domain], ["--domain", domain])


def zenoh_graph() -> Graph:
    """The bridge listens where a router would; everyone else connects there."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    return Graph("zenoh", {}, ["--listen", endpoint, "--domain", "7"], ["--connect", endpoint, "--domain", "7"])


def start_roscore(home: Path) -> tuple[subprocess.Popen, str] | None:
    """A roscore and its URI; None when it gives up, as it does when its master is slow or its port was taken."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **ros1_environment(uri, home)}
    with (home / "roscore.log").open("wb") as log:
        process = subprocess.Popen(["roscore", "-p", str(port)], env=environment, stdout=log, stderr=subprocess.STDOUT)
    deadline_s = time.monotonic() + PATIENCE_S / 2
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, uri
        except OSError:
            time.sleep(0.1)
    process.terminate()
    process.wait()
    return None
