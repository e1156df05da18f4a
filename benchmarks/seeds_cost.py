"""What the seeds cost per frame on one core: advice before the selection and learning after it.

    python -m benchmarks.seeds_cost [--json FILE] [--source URI] [--frames 300] [--model FILE]

Frames are perceived beforehand; then seeds, selection and identities run as in the engine, so that the seeds learn
from real decisions. `ms` is the wall, `cpu_ms` the calling thread alone, which other work disturbs less. The first
frames, in which the memories are still empty, are not counted.
"""

import argparse
import itertools
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError
from engine.perceive.network import Network, resolve_model
from engine.percepts import Percepts
from engine.pipeline import Pipeline, warm_up
from engine.seeds.config import SeedsConfig
from engine.seeds.stage import SeedFrame, Seeds
from streaming.sources import open_source

TARGET_MS = 4.0
"""Median of a frame's advice and learning together."""

LEFT_OUT = 15
"""First frames of a video: the memories fill while the first commits come in."""

_AHEAD = 50
"""Frames perceived before their seeds are timed, so that the network is not what fills the caches."""

Costs = dict[str, tuple[float, float]]
"""Wall and thread milliseconds of each part of one frame."""


class TimedSeeds(Seeds):
    """The seeds with a clock on both calls; `parts` belong to the frame being decided."""

    def __init__(self, config: SeedsConfig) -> None:
        super().__init__(config)
        self.parts: Costs = {}

    def step(self, percepts: Percepts, frame_index: int, image: np.ndarray | None = None) -> SeedFrame:
        """Advise on a frame, timed as a whole; its parts state wall time only."""
        wall, cpu = time.perf_counter(), time.thread_time()
        advised = super().step(percepts, frame_index, image)
        self._add("step", wall, cpu)
        for name, spent_ms in advised.timing_ms.items():
            if name != "seeds":
                self.parts[name.replace("seeds.", "step: ")] = (spent_ms, float("nan"))
        return advised

    def learn(self, frame_index: int, chosen: Mapping[int, int], exact: bool, loss_bound: float) -> bool:
        """Learn from a commit, timed."""
        wall, cpu = time.perf_counter(), time.thread_time()
        learned = super().learn(frame_index, chosen, exact, loss_bound)
        self._add("learn", wall, cpu)
        return learned

    def _add(self, name: str, wall: float, cpu: float) -> None:
        # A frame may settle several earlier ones: their lessons are this frame's cost.
        before = self.parts.get(name, (0.0, 0.0))
        spent = ((time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3)
        self.parts[name] = (before[0] + spent[0], before[1] + spent[1])


def frame_costs(source: str, frames: int, network: Network, config: EngineConfig) -> list[Costs]:
    """Costs of every frame of a source but the first `LEFT_OUT`.

    Raises:
        SourceError: the source cannot be opened or read, or is too short.
    """
    pipeline = Pipeline(config, network)
    pipeline.seeds = seeds = TimedSeeds(config.seeds)
    costs = []
    with open_source(source) as video:
        wanted = itertools.islice(video, frames)
        while shown := [(frame, pipeline.perceive(frame)) for frame in itertools.islice(wanted, _AHEAD)]:
            for frame, percepts in shown:
                seeds.parts = {}
                pipeline.decide(frame, percepts)
                spent = seeds.parts
                whole = [spent["step"], spent.get("learn", (0.0, 0.0))]
                costs.append({"seeds": (sum(w for w, _ in whole), sum(c for _, c in whole)), **spent})
    if len(costs) <= LEFT_OUT:
        raise SourceError(f"{source}: {len(costs)} frames, more than {LEFT_OUT} needed (the first are not counted)")
    return costs[LEFT_OUT:]


def summary(costs: list[Costs]) -> dict[str, dict[str, float | None]]:
    """Median and 95th percentile of each part in milliseconds; frames without a part did not pay for it."""
    columns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in costs:
        for name, spent in row.items():
            columns[name].append(spent)
    out: dict[str, dict[str, float | None]] = {}
    for name in sorted(columns, key=lambda name: (name != "seeds", name)):
        wall, cpu = np.array(columns[name]).T
        measured = not np.isnan(cpu).any()
        out[name] = {
            "frames": len(wall),
            "ms": round(float(np.median(wall)), 3),
            "p95_ms": round(float(np.percentile(wall, 95)), 3),
            "cpu_ms": round(float(np.median(cpu)), 3) if measured else None,
            "p95_cpu_ms": round(float(np.percentile(cpu, 95)), 3) if measured else None,
        }
    return out


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report's content."""
    config = EngineConfig()
    network = Network(resolve_model(options.model), threads=config.perceive.threads)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        warm_up(config, network)
        costs = frame_costs(options.source, options.frames, network, config)
    finally:
        cv2.setNumThreads(threads)
    parts = summary(costs)
    return {
        "source": options.source,
        "frames": len(costs),
        "model": {"name": network.name, "hash": network.hash},
        "target_ms": TARGET_MS,
        "within_target": parts["seeds"]["cpu_ms"] is not None and parts["seeds"]["cpu_ms"] <= TARGET_MS,
        "parts": parts,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    met = f"median {'within' if result['within_target'] else 'above'} {result['target_ms']:g} ms of one core"
    table = Table(
        title=f"seeds, {result['source']}, {result['frames']} frames: {met}",
        title_justify="left",
    )
    names = ("frames", "ms", "p95_ms", "cpu_ms", "p95_cpu_ms")
    table.add_column("part")
    for name in names:
        table.add_column(name, justify="right")
    for part, row in result["parts"].items():
        table.add_row(part, str(row["frames"]), *("" if row[n] is None else f"{row[n]:.3f}" for n in names[1:]))
    console.print(table)


def _frames(text: str) -> int:
    if not text.isdigit() or int(text) <= LEFT_OUT:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number above {LEFT_OUT}, which are not counted")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo", help="clip or scene; default: the built-in scene at 480p")
    parser.add_argument("--frames", type=_frames, default=300)
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    options = parser.parse_args(arguments)
    try:
        result = measure(options)
        show(result, Console(width=110))
        machine.write_report(options.json, result)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
