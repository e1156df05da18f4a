"""Mining recordings: frames per second with one worker and with two, memory, a cost model, offline against streaming.

    python -m benchmarks.scale --clips DIR [--limit N] [--runs R] [--robots 10000] [--hours 8] [--hz 30] [--json FILE]
    python -m benchmarks.scale --davis DIR [--frames N] [--json FILE]

The first mines N recordings below DIR, small and large alike, with one worker and with two in turn, decoding included.
Times are of the workers, from the first frame of the first recording to the last shard: starting Python or Ray is
reported beside them. The cost model is judged by how well half of the recordings tell the total of the others. The
second shows each sequence to the engine twice, with its deadline and with all the time there is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from benchmarks import machine
from benchmarks.davis import Sequence, sequences
from benchmarks.footage import ForegroundJudge, run_sequence
from benchmarks.options import at_least, engine_config
from benchmarks.selection import path_cost, replay
from engine.errors import EngineError, SourceError, UsageError
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline
from engine.select.path import offline_path
from learning.mine.offline import offline_config
from learning.mine.recordings import Recording, find_recordings
from learning.mine.shards import MinedStore

Row = dict[str, Any]
Trace = list[tuple[np.ndarray, "np.ndarray | None"]]

WORKERS = (1, 2)
_FEWEST = 8
"""Recordings below which half of them say nothing about the other half."""

_SPLITS = 200


def mined(recordings: list[Recording], workers: int, folder: Path) -> tuple[Row, list[Row]]:
    """One run of the command into an empty store: its figures and the account of every recording.

    Raises:
        SourceError: the command failed.
    """
    line = [sys.executable, "-m", "learning.mine", *(one.uri for one in recordings), "--out", str(folder)]
    start = time.time()
    done = subprocess.run([*line, "--workers", str(workers)], capture_output=True, text=True)
    seconds = time.time() - start
    if done.returncode:
        raise SourceError(f"learning.mine with {workers} workers failed: {done.stderr.strip().splitlines()[-1][:200]}")
    accounts = list(MinedStore(str(folder)).accounts())
    begin = min(one["began_s"] + one["load_s"] for one in accounts)
    end = max(one["began_s"] + one["load_s"] + one["wall_s"] for one in accounts)
    frames = sum(one["frames"] for one in accounts)
    return {
        "workers": workers,
        "recordings": len(accounts),
        "frames": frames,
        "fps": round(frames / (end - begin), 2),
        "cpu_ms_per_frame": round(1e3 * sum(one["cpu_s"] for one in accounts) / frames, 2),
        "start_and_end_s": round(seconds - (end - begin), 1),
        "worker_peak_mb": max(one["peak_mb"] for one in accounts),
        "exact_percent": round(100 * sum(one["exact"] for one in accounts) / frames, 3),
    }, accounts


def throughput(recordings: list[Recording], runs: int, console: Console) -> tuple[Row, list[Row]]:
    """Runs with one and two workers in turn, so that what else the machine does meets both; accounts of one worker."""
    rows: list[Row] = []
    accounts: list[Row] = []
    for run in range(runs):
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                row, found = mined(recordings, workers, Path(folder) / "store")
            rows.append(row)
            console.print(f"run {run + 1}, {workers} workers: {row['fps']} frames per second", highlight=False)
            accounts = found if workers == 1 else accounts
    fps = {workers: float(np.median([row["fps"] for row in rows if row["workers"] == workers])) for workers in WORKERS}
    return {"runs": rows, "fps": fps, "ratio": round(fps[2] / fps[1], 3)}, accounts


def cost_model(accounts: list[Row]) -> Row:
    """Core-seconds and bytes of a recording, each = frames x a + megapixels x b, and how far off such a model is.

    The coefficients are fitted on all recordings; none is negative. The error is that of models fitted on a random
    half, of the total of the other half: over `_SPLITS` halves the median of its size, and the range of nine in ten.
    """
    table = np.array([[one["frames"], one["megapixels"]] for one in accounts], float)
    measured = {
        "core_s": np.array([one["cpu_s"] for one in accounts]),
        "mb": np.array([one["shard_bytes"] for one in accounts]) / 2**20,
    }
    rng = np.random.default_rng(0)
    halves = [np.array_split(rng.permutation(len(accounts)), 2) for _ in range(_SPLITS)]
    coefficients, errors = {}, {}
    for name, values in measured.items():
        coefficients[name] = nnls(table, values)[0]
        off = np.array(
            [
                100 * ((table[rest] @ nnls(table[half], values[half])[0]).sum() / values[rest].sum() - 1)
                for half, rest in halves
            ]
        )
        low, high = np.percentile(off, (5, 95))
        errors[name] = {
            "median": round(float(np.median(np.abs(off))), 1),
            "90%": [round(float(low), 1), round(float(high), 1)],
        }
    kept = sum(one["kept"] for one in accounts)
    return {
        "recordings": len(accounts),
        "ms_per_frame": round(float(1e3 * coefficients["core_s"][0]), 3),
        "ms_per_megapixel": round(float(1e3 * coefficients["core_s"][1]), 3),
        "kb_per_frame": round(float(1024 * coefficients["mb"][0]), 3),
        "kb_per_megapixel": round(float(1024 * coefficients["mb"][1]), 3),
        "frames_kept_share": round(float(kept / table[:, 0].sum()), 4),
        "kb_per_kept_frame": round(float(1024 * measured["mb"].sum() / max(1, kept)), 1),
        "error_percent": errors,
    }


def fleet(model: Row, robots: int, hours: float, hz: float, megapixels: float) -> Row:
    """What `robots` need that record `hours` a day at `hz` and that many megapixels, mined within the same day."""
    frames = robots * hours * 3600 * hz
    core_hours = frames * (model["ms_per_frame"] + megapixels * model["ms_per_megapixel"]) / 3.6e6
    per_hour_mb = 3600 * hz * (model["kb_per_frame"] + megapixels * model["kb_per_megapixel"]) / 1024
    return {
        "robots": robots,
        "hours_per_day": hours,
        "hz": hz,
        "megapixels": megapixels,
        "frames_per_core_hour": round(frames / core_hours),
        "core_hours_per_day": round(core_hours),
        "cores_day_and_night": round(core_hours / 24),
        "mb_per_robot_hour": round(per_hour_mb, 1),
        "tb_per_day": round(robots * hours * per_hour_mb / 2**20, 2),
    }


def regrets(trace: Trace, nodes: list[int]) -> np.ndarray:
    """What each decision turned out to cost, in the order they were made: float64 [frames], summing up to the gap.

    Regret t = (optimum that goes through the nodes up to t) - (optimum that goes through those up to t - 1).
    """
    to_end = [np.zeros(len(trace[-1][0]))]
    for (unary, _), (later, pairwise) in zip(trace[-2::-1], trace[:0:-1], strict=True):
        onward = later + to_end[0]
        free = np.full(len(unary), onward.min())  # where nothing couples two frames
        to_end.insert(0, free if pairwise is None else (pairwise + onward).min(axis=1))
    before = float((trace[0][0] + to_end[0]).min())
    out, spent = [], 0.0
    for t, (unary, pairwise) in enumerate(trace):
        spent += float(unary[nodes[t]])
        if t and pairwise is not None:
            spent += float(pairwise[nodes[t - 1], nodes[t]])
        now = spent + float(to_end[t][nodes[t]])
        out.append(now - before)
        before = now
    return np.array(out)


def compared(sequence: Sequence, settings: list[str], network: Network) -> Row:
    """One sequence, streaming and offline: J of both, and what the deadline cost against what it had promised."""
    config = engine_config(settings)
    trace: Trace = []
    streaming = Pipeline(config, network)
    streaming.selection.trace = lambda index, unary, pairwise: trace.append((unary, pairwise))
    online = run_sequence(sequence, streaming, [ForegroundJudge()])
    offline = run_sequence(
        sequence, Pipeline(offline_config(config, 10 * len(sequence.frames)), network), [ForegroundJudge()]
    )
    nodes, commits, _ = replay(trace, config.select.lag)
    gap = path_cost(trace, nodes) - offline_path(*zip(*trace, strict=True))[1]
    realised = regrets(trace, nodes)
    bounds = np.array([commit.loss_bound for commit in commits])
    return {
        "frames": len(sequence.frames),
        "J_streaming": online["final"]["J_fg"],
        "J_offline": offline["final"]["J_fg"],
        "J_id_streaming": online["final"]["J_best_id"],
        "J_id_offline": offline["final"]["J_best_id"],
        "exact_streaming": online["commits_exact"],
        "exact_offline": offline["commits_exact"],
        "gap": round(float(gap), 9),
        "sum_of_regrets": round(float(realised.sum()), 9),
        "sum_of_bounds": round(float(bounds.sum()), 9),
        "bounds_exceeded": int((realised > bounds + 1e-9).sum()),
    }


def davis(options: argparse.Namespace, console: Console) -> Row:
    """Every sequence of a folder in the DAVIS layout."""
    network = Network(resolve_model(options.model), threads=1)
    rows = {}
    for sequence in sequences(options.davis):
        rows[sequence.name] = compared(sequence.first(options.frames), options.set, network)
        console.print(f"{sequence.name}: {json.dumps(rows[sequence.name])}", highlight=False, soft_wrap=True)
    names = [name for name in next(iter(rows.values())) if name.startswith("J_")]
    means = {name: round(float(np.mean([row[name] for row in rows.values()])), 4) for name in names}
    sums = {
        name: round(sum(row[name] for row in rows.values()), 9) for name in ("gap", "sum_of_regrets", "sum_of_bounds")
    }
    return {"sequences": rows, "mean": means, "sum": sums}


def scaling(options: argparse.Namespace, console: Console) -> Row:
    """Throughput, memory, cost model and what a fleet needs by it."""
    found = sorted(find_recordings([str(options.clips)]), key=lambda one: (-one.size, one.uri))
    found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(options.limit, len(found))).astype(int))]
    if len(found) < _FEWEST:
        raise UsageError(f"--clips {options.clips}: {len(found)} recordings, at least {_FEWEST} are needed")
    result, accounts = throughput(found, options.runs, console)
    model = cost_model(accounts)
    pixels = sum(one["megapixels"] for one in accounts) / sum(one["frames"] for one in accounts)
    needs = [fleet(model, options.robots, options.hours, options.hz, size) for size in (round(pixels, 3), 0.41, 2.07)]
    return {"throughput": result, "cost_model": model, "fleet": needs}


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print rows with equal keys as a table."""
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=Path, metavar="DIR", help="recordings that may be learned from")
    parser.add_argument(
        "--limit", type=at_least(_FEWEST), default=40, metavar="N", help="so many, evenly from the list by size (40)"
    )
    parser.add_argument("--runs", type=at_least(1), default=3, metavar="R", help="with each number of workers (3)")
    parser.add_argument("--robots", type=at_least(1), default=10_000)
    parser.add_argument("--hours", type=float, default=8.0, help="recorded per robot and day")
    parser.add_argument("--hz", type=float, default=30.0, help="frames per second recorded")
    parser.add_argument("--davis", type=Path, metavar="DIR", help="annotated sequences, for offline against streaming")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every sequence only")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    console = Console(width=160)
    try:
        if options.clips is None and options.davis is None:
            raise UsageError("--clips or --davis: name at least one folder")
        content: Row = {}
        if options.clips is not None:
            content |= scaling(options, console)
            show(console, "Mining", content["throughput"]["runs"])
            console.print(
                f"two workers: {content['throughput']['ratio']} times one; cost model {content['cost_model']}"
            )
            show(console, "A fleet", content["fleet"])
        if options.davis is not None:
            content["offline"] = davis(options, console)
            rows = [{"sequence": name} | row for name, row in content["offline"]["sequences"].items()]
            show(console, "Offline against streaming", rows)
            console.print(json.dumps({name: content["offline"][name] for name in ("mean", "sum")}))
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
