"""What the live page costs the engine: without it, with it unwatched, and with one and more viewers.

    python -m benchmarks.preview_cost [--json FILE] [--paces none 30] [--frames 300] [--runs 8] [--viewers 0 1 4]

Each run is an engine of its own on the built-in scene, as fast as it goes (pace `none`) or at the pace of a camera.
Viewers are threads of this process that ask as a browser does and throw the pictures away: drawing them costs the
viewer's machine, not the robot. Runs of the variants take turns, forth and back, and each is compared with the run
without a page beside it, so that a machine that slows down slows all of them down. What is told is the median over
these pairs with its 95 % interval (order statistics: no assumption about the noise). Processor time is the engine
process's own, all threads: what other programs do hardly touches it. The promise is 5 % with one viewer.

Beside that, without an engine: the processor time of one picture on its way to one viewer, everything included, even
the viewer. At ten pictures per second, a hundredth of these milliseconds is the share of one core they take.
"""

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks import machine
from benchmarks.options import at_least
from benchmarks.slow_subscriber import demo_scenes
from engine.errors import EngineError, SourceError
from streaming.engine_thread import FrameDone
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.message import unpack
from streaming.preview.server import PreviewServer
from streaming.sources import open_source

PROMISE = 0.05
"""Share of its frame rate the engine may lose to one viewer."""

_WITHOUT = -1
"""In place of a number of viewers: no page at all."""


class Viewer(threading.Thread):
    """Asks for message after message until the engine is gone.

    Attributes:
        pictures: how many came with a picture.
        bytes: received in all.
    """

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._url = url
        self.pictures = 0
        self.bytes = 0

    def run(self) -> None:
        source, number = "", 0
        connection = HTTPConnection(urlsplit(self._url).netloc, timeout=20)
        # An engine that has ended refuses or cuts the connection: the end of this viewer.
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            while True:
                connection.request("GET", f"/feed?viewer={self.name}&source={quote(source)}&after={number}")
                content = connection.getresponse().read()
                self.bytes += len(content)
                state, _, jpeg = unpack(content)
                number = state.get("number", number)
                source = source or next((item["name"] for item in state["sources"]), "")
                self.pictures += bool(jpeg)


def run_once(pace: str, frames: int, viewers: int, size: str = "480x854") -> dict[str, float]:
    """Frame rate, latency and processor time of one engine process with so many viewers (-1: without the page).

    Raises:
        SourceError: the engine failed; its last line is given.
    """
    source = f"demo://?frames=0&size={size}" + ("" if pace == "none" else f"&live=1&fps={pace}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "stats.json"
        command = [sys.executable, "-m", "engine.run", "--source", source]
        command += ["--every-frame"] if pace == "none" else []
        command += ["--publish", "tcp://127.0.0.1:*", "--max-frames", str(frames), "--stats-json", str(report)]
        if viewers != _WITHOUT:
            command += ["--preview", "0"]
        watching: list[Viewer] = []
        line = ""
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                found = re.search(r"live page: (\S+)", line)
                if found:
                    watching = [Viewer(found[1], f"v{number}") for number in range(viewers)]
                    for viewer in watching:
                        viewer.start()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SourceError(f"the engine ended with exit code {process.returncode}: {line.strip()}")
        for viewer in watching:
            viewer.join(30)
        content = json.loads(report.read_text(encoding="utf-8"))
    seconds = content["frames"] / max(content["fps"], 1e-6)
    return {
        "fps": content["fps"],
        "total_p50_ms": content["latency_ms"]["total"]["p50"],
        "cpu_ms_per_frame": 1e3 * (used.ru_utime + used.ru_stime) / content["frames"],
        "pictures_per_s": statistics.mean([v.pictures for v in watching]) / seconds if watching else 0.0,
        "kb_per_s": sum(v.bytes for v in watching) / 1000 / seconds,
    }


def picture_cpu_ms(size: str, pictures: int = 40) -> float:
    """Processor time of observing (30 Hz), encoding, sending and receiving one picture."""
    with open_source(f"demo://?frames=30&size={size}") as source:
        frames = list(source)
    scenes = demo_scenes(len(frames), size)
    timing_ms = dict.fromkeys(("motion", "network", "propose", "seeds", "select", "compose", "publish"), 1.0)
    done = [
        FrameDone("demo", frame, [scene], timing_ms, 20.0, 25.0) for frame, scene in zip(frames, scenes, strict=True)
    ]
    view = LiveView(lambda: [{"name": "demo", "state": "live", "fps": 30.0}])
    server = PreviewServer(view, _Nobody(), port=0)
    viewer = Viewer(server.url, "v0")
    viewer.start()
    number, before, start_s = 0, 0, 0.0
    while viewer.pictures < before + pictures:
        if not before and viewer.pictures:
            before, start_s = viewer.pictures, time.process_time()  # the first one also loads and connects
        view.observe(done[number % len(done)])
        number += 1
        time.sleep(1 / 30)
    used_s = time.process_time() - start_s
    view.close()
    server.close()
    return 1e3 * used_s / (viewer.pictures - before)


class _Nobody(Actions):
    """For viewers that only watch."""

    def __init__(self) -> None: ...


def median_interval(values: list[float]) -> dict[str, float | None]:
    """Median, and the bounds of its 95 % interval between order statistics; None where there are too few values."""
    found = stats.quantile_test(values, q=0.0, p=0.5).confidence_interval(0.95)
    low, high = (None if math.isnan(bound) else round(float(bound), 4) for bound in (found.low, found.high))
    return {"median": round(statistics.median(values), 4), "low": low, "high": high}


def measure(pace: str, frames: int, runs: int, viewers: list[int], size: str = "480x854") -> dict[str, Any]:
    """Medians over runs of every variant, and what each loses against no page."""
    variants = [_WITHOUT, *sorted(set(viewers))]
    done: dict[int, list[dict[str, float]]] = {variant: [] for variant in variants}
    for number in range(runs):
        for variant in variants if number % 2 == 0 else reversed(variants):
            done[variant].append(run_once(pace, frames, variant, size))
    rows = []
    for variant in variants:
        middle = {name: round(statistics.median(run[name] for run in done[variant]), 2) for name in done[variant][0]}
        pairs = list(zip(done[variant], done[_WITHOUT], strict=True))
        row: dict[str, Any] = {"viewers": None if variant == _WITHOUT else variant, **middle}
        row["fps_lost"] = median_interval([1 - run["fps"] / plain["fps"] for run, plain in pairs])
        for name, key in (("latency_added", "total_p50_ms"), ("cpu_added", "cpu_ms_per_frame")):
            row[name] = median_interval([run[key] / plain[key] - 1 for run, plain in pairs])
        rows.append(row)
    return {"pace": pace, "size": size, "frames": frames, "runs": runs, "promise": PROMISE, "variants": rows}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    pace = "as fast as it goes" if result["pace"] == "none" else f"{result['pace']} fps"
    table = Table(
        title=f"{pace}, {result['size']}, {result['frames']} frames, medians of {result['runs']} runs [95 % interval]",
        title_justify="left",
    )
    columns = ("live page", "fps", "total p50, ms", "CPU ms/frame", "pictures/s each", "kB/s")
    for column in (*columns, "fps lost", "latency added", "CPU added"):
        table.add_column(column, justify="left" if column == "live page" else "right")
    for row in result["variants"]:
        name = "none" if row["viewers"] is None else f"{row['viewers']} watching"
        keys = ("fps", "total_p50_ms", "cpu_ms_per_frame", "pictures_per_s", "kb_per_s")
        shares = (row[name] for name in ("fps_lost", "latency_added", "cpu_added"))
        table.add_row(name, *(f"{row[key]:.1f}" for key in keys), *(_percent(share) for share in shares))
    console.print(table)


def _percent(share: dict[str, float | None]) -> str:
    low, high = share["low"], share["high"]
    bounds = "" if low is None or high is None else f" [{low:+.1%}, {high:+.1%}]"
    return f"{share['median']:+.1%}{bounds}"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--paces", nargs="+", default=["none", "30"], metavar="FPS", help="none: as fast as it goes")
    parser.add_argument("--size", default="480x854", metavar="HxW")
    parser.add_argument("--frames", type=at_least(20), default=300)
    parser.add_argument("--runs", type=at_least(0), default=8, help="6 and more give an interval; 0: none")
    parser.add_argument("--viewers", type=at_least(0), nargs="+", default=[0, 1, 4])
    options = parser.parse_args(arguments)
    console = Console(width=160)
    try:
        results = []
        for pace in [] if options.runs == 0 else options.paces:
            results.append(measure(pace, options.frames, options.runs, options.viewers, options.size))
            show(results[-1], console)
        cpu_ms = round(picture_cpu_ms(options.size), 2)
        console.print(f"one picture to one viewer: {cpu_ms} ms of processor time, {cpu_ms:.1f} % of a core at 10 Hz")
        machine.write_report(options.json, {"paces": results, "picture_cpu_ms": cpu_ms})
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
