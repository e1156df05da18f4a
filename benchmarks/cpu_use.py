"""What the engine takes of the processor on a camera that is slower than the engine, and when no frame comes.

    python -m benchmarks.cpu_use --json FILE --source CLIP [--fps 30] [--models default fast] [--seconds 20]
        [--threads 1 2] [-- engine options]

The engine runs as a process of its own (`python -m engine.run`, publishing, newest frame, the clip over and over, at
its own rate or, an MP4 file, at --fps), so that decoding counts and this program does not. Its processor time is read
from outside (Linux) once it has seen a second of frames, and once more when every source is paused. Times of the
processor, unlike latencies, hardly depend on what else the machine does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import above_zero, at_least
from benchmarks.paced_clip import with_rate
from engine.errors import EngineError, StoreError
from streaming.control.client import ControlClient
from streaming.control.protocol import ControlError

_WARM_FRAMES = 30
_START_S = 120.0
"""The first run on a machine compiles."""

_ANSWER_S = 30.0
_KNOCK_S = 1.0
_IDLE_S = 3.0
_SETTLE_S = 0.5
_POLL_S = 0.05


def processor_s(pid: int) -> float:
    """Seconds of processor time a process has used, all threads together (Linux).

    Raises:
        StoreError: there is no such process, or no /proc.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"processor time of {pid}: {error.strerror or error}; this needs Linux") from None
    # The name in parentheses may contain blanks.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def use(pid: int, frames: Callable[[], int], seconds: float) -> dict[str, float]:
    """What a process uses over a time: share of one core, frames per second, processor time per frame."""
    used_s, start_s, before = processor_s(pid), time.perf_counter(), frames()
    time.sleep(seconds)
    used_s, wall_s, count = processor_s(pid) - used_s, time.perf_counter() - start_s, frames() - before
    figures = {"cpu_percent": 100 * used_s / wall_s, "fps": count / wall_s}
    if count:
        figures["cpu_ms_per_frame"] = 1e3 * used_s / count
    return {name: round(value, 2) for name, value in figures.items()}


def measure(model: str, source: str, seconds: float, threads: int | None, engine: list[str]) -> dict[str, Any]:
    """Figures of one engine process: `running`, `idle`, and the latency it told at its end.

    Raises:
        SystemExit: the engine failed; its one line is shown.
        StoreError: no /proc.
    """
    with tempfile.TemporaryDirectory() as folder:
        log, stats = Path(folder) / "log", Path(folder) / "stats.json"
        command = [sys.executable, "-m", "engine.run", "--source", source, "--model", model]
        command += ["--newest-frame", "--loop", "--pace", "native", "--stats-json", str(stats)]
        command += [] if threads is None else ["--set", f"perceive.threads={threads}"]
        command += ["--publish", f"ipc://{folder}/masks", "--control", f"ipc://{folder}/control", *engine]
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stderr=errors)
        try:
            with ControlClient(f"ipc://{folder}/control", timeout_s=_ANSWER_S) as control:
                figures = _watch(process, control, seconds)
                control.shutdown()
            process.wait(30)
        except ControlError as error:
            ended = process.poll() is not None
            raise SystemExit(_last_line(log) if ended else str(error)) from None
        finally:
            process.kill()
            process.wait()
        told = json.loads(stats.read_text(encoding="utf-8"))
    return {
        "model": told["model"],
        "threads": threads,
        **figures,
        "latency_ms": told["latency_ms"]["total"],
        "dropped": told["dropped"],
    }


def _watch(process: "subprocess.Popen[bytes]", control: ControlClient, seconds: float) -> dict[str, Any]:
    def frames() -> int:
        return int(control.status()["frames"])

    deadline_s = time.monotonic() + _START_S
    while True:
        if process.poll() is not None:
            raise ControlError("no_answer", "the engine ended before it was measured")
        try:
            # Asked in short: what ends before it listens never answers.
            if int(control.call("status", timeout_s=_KNOCK_S)["frames"]) >= _WARM_FRAMES:
                break
        except ControlError:
            pass
        if time.monotonic() > deadline_s:
            raise ControlError("no_answer", f"the engine saw no {_WARM_FRAMES} frames within {_START_S:g} s")
        time.sleep(_POLL_S)
    running = use(process.pid, frames, seconds)
    control.pause()
    time.sleep(_SETTLE_S)
    return {"running": running, "idle": use(process.pid, frames, _IDLE_S)}


def _last_line(log: Path) -> str:
    return next(iter(log.read_text(encoding="utf-8").strip().splitlines()[-1:]), "")


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo://?frames=0", help="default: the built-in scene, rendering included")
    parser.add_argument("--models", nargs="+", default=["default", "fast"], metavar="NAME|PATH")
    parser.add_argument("--seconds", type=at_least(1), default=20)
    parser.add_argument("--fps", type=above_zero, help="play the clip, an MP4 file, at this rate")
    parser.add_argument(
        "--threads", type=at_least(1), nargs="+", default=[None], help="of the network; one row for each"
    )
    parser.add_argument("engine", nargs="*", help="after --: further options of engine.run")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = with_rate(options.source, options.fps, Path(folder)) if options.fps else options.source
            rows = [
                measure(model, source, options.seconds, threads, options.engine)
                for model in options.models
                for threads in options.threads
            ]
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    columns = ("model", "threads", "fps", "% of a core", "ms of a core per frame", "latency p50", "p99", "% paused")
    table = Table(*columns, title=options.source)
    for row in rows:
        running, latency = row["running"], row["latency_ms"]
        cells = (running["fps"], running["cpu_percent"], running.get("cpu_ms_per_frame", 0.0))
        ends = (latency["p50"], latency["p99"], row["idle"]["cpu_percent"])
        threads = "" if row["threads"] is None else str(row["threads"])
        table.add_row(row["model"]["name"], threads, *(f"{value:.1f}" for value in (*cells, *ends)))
    Console(width=110).print(table)
    return machine.finish(
        options.json, {"source": options.source, "fps": options.fps, "seconds": options.seconds, "models": rows}
    )


if __name__ == "__main__":
    sys.exit(main())
