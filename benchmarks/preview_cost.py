"""What the live page costs the engine: frames per second without it, with it unwatched, and with one and more viewers.

    python -m benchmarks.preview_cost [--json FILE] [--source demo] [--frames 300] [--runs 3] [--viewers 0 1 4]

Each run is an engine of its own that processes every frame as fast as it goes. Viewers are threads of this process
that ask as a browser does and throw the pictures away: drawing them costs the viewer's machine, not the robot. Runs of
the variants take turns, so that a machine that slows down slows all of them down. The promise is 5 % with one viewer.
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import at_least
from engine.errors import EngineError, SourceError
from streaming.preview.message import unpack

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


def run_once(source: str, frames: int, viewers: int) -> dict[str, float]:
    """Frame rate and median latency of one engine process with so many viewers (-1: without the page).

    Raises:
        SourceError: the engine failed; its last line is given.
    """
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats.json"
        command = [
            sys.executable,
            "-m",
            "engine.run",
            "--source",
            source,
            "--every-frame",
            "--publish",
            "tcp://127.0.0.1:*",
        ]
        command += ["--max-frames", str(frames), "--stats-json", str(stats)]
        if viewers != _WITHOUT:
            command += ["--preview", "0"]
        watching: list[Viewer] = []
        line = ""
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                found = re.search(r"live page: (\S+)", line)
                if found:
                    watching = [Viewer(found[1], f"v{number}") for number in range(viewers)]
                    for viewer in watching:
                        viewer.start()
        if process.returncode:
            raise SourceError(f"the engine ended with exit code {process.returncode}: {line.strip()}")
        for viewer in watching:
            viewer.join(30)
        content = json.loads(stats.read_text(encoding="utf-8"))
    seconds = content["frames"] / max(content["fps"], 1e-6)
    return {
        "fps": content["fps"],
        "total_p50_ms": content["latency_ms"]["total"]["p50"],
        "pictures_per_s": statistics.mean([v.pictures for v in watching]) / seconds if watching else 0.0,
        "kb_per_s": sum(v.bytes for v in watching) / 1000 / seconds,
    }


def measure(source: str, frames: int, runs: int, viewers: list[int]) -> dict[str, Any]:
    """Medians over runs of every variant, and what each loses against no page."""
    variants = [_WITHOUT, *sorted(set(viewers))]
    done: dict[int, list[dict[str, float]]] = {variant: [] for variant in variants}
    for _ in range(runs):
        for variant in variants:
            done[variant].append(run_once(source, frames, variant))
    rows = []
    for variant in variants:
        middle = {name: round(statistics.median(run[name] for run in done[variant]), 2) for name in done[variant][0]}
        # Neighbours in time are compared: the median of their ratios outlives a machine that changes its speed.
        lost = statistics.median(
            1 - run["fps"] / plain["fps"] for run, plain in zip(done[variant], done[_WITHOUT], strict=True)
        )
        rows.append({"viewers": None if variant == _WITHOUT else variant, **middle, "lost": round(lost, 4)})
    return {"source": source, "frames": frames, "runs": runs, "promise": PROMISE, "variants": rows}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title=f"{result['source']}, {result['frames']} frames, medians of {result['runs']} runs")
    for column in ("live page", "fps", "total p50, ms", "pictures/s each", "kB/s", "fps lost"):
        table.add_column(column, justify="left" if column == "live page" else "right")
    for row in result["variants"]:
        name = "none" if row["viewers"] is None else f"{row['viewers']} watching"
        numbers = (f"{row[key]:.1f}" for key in ("fps", "total_p50_ms", "pictures_per_s", "kb_per_s"))
        table.add_row(name, *numbers, f"{row['lost']:.1%}")
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo://?frames=0")
    parser.add_argument("--frames", type=at_least(20), default=300)
    parser.add_argument("--runs", type=at_least(1), default=3)
    parser.add_argument("--viewers", type=at_least(0), nargs="+", default=[0, 1, 4])
    options = parser.parse_args(arguments)
    try:
        result = measure(options.source, options.frames, options.runs, options.viewers)
        show(result, Console(width=110))
        machine.write_report(options.json, result)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
