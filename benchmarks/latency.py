"""Per-stage latency of the engine command on a clip or the built-in scene, with one backend or with all.

    python -m benchmarks.latency --json FILE [--source URI] [--runs 3] [--frames 300]
    python -m benchmarks.latency --backends all --devices all --json FILE [--model M] [--paces 0 30 60] [--seconds 2]

Each run is a process of its own (`python -m engine.run`, every frame, publishing on); medians over runs.
With --backends, each backend that is there is measured alone too (`benchmarks.model_latency`): the model, the model
with what is before and after it, and the whole step, at each pace, for at most --seconds each; those that are not there
are listed with the reason. That is 40 to 60 seconds per backend; the JSON is written anew after each of them, so that
nothing is lost when it is cut short.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, model_latency
from benchmarks.options import above_zero, at_least
from engine.errors import EngineError
from engine.perceive.backends.choose import BACKENDS, DEVICES, choose
from engine.perceive.network import resolve_model


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


def alone(backend: str, device: str, model: str | None, options: argparse.Namespace) -> dict[str, Any] | str:
    """Figures of `benchmarks.model_latency` for one backend, or the line that says why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "benchmarks.model_latency", "--backend", backend, "--device", device]
        command += ["--source", options.source, "--frames", str(options.frames), "--json", str(report)]
        command += ["--precision", options.precision, "--paces", *map(str, options.paces)]
        command += ["--seconds", str(options.seconds)]
        command += ["--model", model] if model else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    figures.pop("machine")
    return figures


def every_backend(
    options: argparse.Namespace, progress: Callable[[str, dict[str, Any]], None] = lambda line, found: None
) -> dict[str, Any]:
    """Figures of every backend and device asked for; a pair that is not there is listed with the reason.

    Args:
        options: of the command line.
        progress: called after each pair with a line about it and all that was found so far.
    """
    own = {"torch": ("--checkpoint", options.checkpoint), "torch-tensorrt": ("--compiled", options.compiled)}
    backends = BACKENDS[1:] if options.backends == ["all"] else options.backends
    devices = DEVICES[1:] if options.devices == ["all"] else options.devices
    pairs = [(backend, device) for backend in backends for device in devices]
    found: dict[str, Any] = {"backends": [], "absent": {}}
    for number, (backend, device) in enumerate(pairs, 1):
        start_s = time.perf_counter()
        option, model = own.get(backend, ("--model", options.model))
        figures: dict[str, Any] | str
        if backend in own and model is None:
            figures = f"give it a file with {option}"
        else:
            figures = one_backend(backend, device, model, options)
        if isinstance(figures, str):
            found["absent"][f"{backend} {device}"] = figures.removeprefix("error: ")
            outcome = "not measured"
        else:
            found["backends"].append(figures)
            outcome = f"measured in {time.perf_counter() - start_s:.0f} s"
        progress(f"{number} of {len(pairs)}: {backend} {device} {outcome}", found)
    return found


def one_backend(backend: str, device: str, model: str | None, options: argparse.Namespace) -> dict[str, Any] | str:
    """Figures of one backend, alone and in the engine's process, or the line that says why there are none."""
    try:
        choose(resolve_model(model).suffix, backend, device)
    except EngineError as error:
        return str(error)
    figures = alone(backend, device, model, options)
    if isinstance(figures, str):
        return figures
    extra = ["--backend", backend, "--device", device, "--set", f"perceive.precision={options.precision}"]
    extra += ["--model", model] if model else []
    try:
        runs = [run_once(options.source, options.frames, extra) for _ in range(options.runs or 1)]
    except SystemExit as error:
        return str(error)
    middle = sorted(runs, key=lambda run: run["latency_ms"]["total"]["p50"])[len(runs) // 2]
    total = {name: round(value, 3) for name, value in middle["latency_ms"]["total"].items()}
    figures["stages"]["engine process"] = {"flat out": total | {"fps": round(middle["fps"], 1)}}
    return figures


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--runs", type=at_least(1), help="default: 3; with --backends 1")
    parser.add_argument("--frames", type=at_least(1), default=300)
    parser.add_argument("extra", nargs="*", help="options passed on to the engine, after --")
    parser.add_argument("--backends", nargs="+", choices=["all", *BACKENDS[1:]], metavar="NAME", help="all, or names")
    parser.add_argument("--devices", nargs="+", choices=["all", *DEVICES[1:]], default=["all"], metavar="NAME")
    parser.add_argument("--model", help="with --backends: name or path")
    parser.add_argument("--checkpoint", help="with --backends: model.pt for torch")
    parser.add_argument("--compiled", help="with --backends: FILE.pt2 for torch-tensorrt")
    parser.add_argument("--precision", default="f32", help="with --backends: f32, f16 or bf16")
    parser.add_argument("--paces", type=float, nargs="+", default=list(model_latency.PACES_FPS), metavar="FPS")
    parser.add_argument(
        "--seconds", type=above_zero, default=2.0, help="with --backends: per stage and pace, default 2"
    )
    options = parser.parse_args(argv)
    if options.backends:

        def tell(line: str, found: dict[str, Any]) -> None:
            machine.write_report(options.json, found)
            print(line, file=sys.stderr, flush=True)

        try:
            # What cannot be written is known before minutes are spent.
            machine.write_report(options.json, {"backends": [], "absent": {}})
            found = every_backend(options, tell)
        except EngineError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        model_latency.print_table(found["backends"])
        for name, reason in found["absent"].items():
            print(f"{name}: not measured, {reason}")
        return machine.finish(options.json, found)
    runs = [run_once(options.source, options.frames, options.extra) for _ in range(options.runs or 3)]

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
        "runs": len(runs),
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
