"""Per-stage latency of the engine command on a clip or the built-in scene.

    python -m benchmarks.latency --json FILE [--source URI] [--runs 3] [--frames 300]

Each run is a process of its own (`python -m engine.run`, every frame, publishing on); medians over runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine


def run_once(source: str, frames: int, extra: list[str]) -> dict[str, Any]:
    """Statistics of one engine process.

    Raises:
        SystemExit: the engine failed; its one line is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats.json"
        command = [sys.executable, "-m", "engine.run", "--source", source, "--every-frame"]
        command += ["--publish", "tcp://127.0.0.1:*", "--max-frames", str(frames), "--stats-json", str(stats)]
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.strip().splitlines()[-1])
        return json.loads(stats.read_text(encoding="utf-8"))


def main() -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("extra", nargs="*", help="options passed on to the engine, after --")
    options = parser.parse_args()
    runs = [run_once(options.source, options.frames, options.extra) for _ in range(options.runs)]

    def middle(*path: str) -> float:
        values = []
        for run in runs:
            value: Any = run
            for key in path:
                value = value[key]
            values.append(float(value))
        return statistics.median(values)

    stages = list(runs[0]["latency_ms"])
    percentiles = ("p50", "p95", "p99", "max")
    latency = {stage: {p: middle("latency_ms", stage, p) for p in percentiles} for stage in stages}
    result = {
        "source": options.source,
        "runs": options.runs,
        "frames": runs[0]["frames"],
        "fps": middle("fps"),
        "fps_of_runs": [run["fps"] for run in runs],
        "latency_ms": latency,
        "age_ms": {p: middle("age_ms", p) for p in percentiles},
        "peak_rss_mb": middle("peak_rss_mb"),
        "commit": runs[0]["commit"],
        "model": runs[0]["model"],
    }
    table = Table(title=f"{options.source}: {result['fps']:.1f} fps, {result['peak_rss_mb']:.0f} MB, ms per stage")
    for column in ("stage", *percentiles):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, values in latency.items():
        table.add_row(stage, *(f"{values[p]:.2f}" for p in percentiles))
    Console(width=100).print(table)
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
