"""What each coupling of seeds and selection buys and costs on the built-in scene, where objects have exact truth.

    python -m benchmarks.couplings [--json FILE] [--seeds 110,112,113] [--frames 300] [--model FILE]

Every frame is perceived once, then decided by one engine per row. HOTA and switches are of final ids, J of the
foreground output against all objects together, both on every fourth pixel; `ms` is the median of what the seeds
took per frame, comparable within one run only. The default seeds are for tuning: what is chosen by them is not
scored on them.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.adaptation import COUPLINGS
from benchmarks.measures import iou
from benchmarks.options import at_least, engine_config, seed_list
from benchmarks.tracking import demo_frames
from benchmarks.tracking_metrics import TrackingScore, compare
from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError, UsageError
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.sinks.masks import foreground_map, id_map

EVERY = 4
ROWS: dict[str, dict[str, Any]] = {
    **COUPLINGS,
    "carry and correct": {**COUPLINGS["all on"], "seeds.grow": False},
    "carry and grow": {**COUPLINGS["all on"], "seeds.learn_memory": False, "seeds.correct_background": False},
    "carry only": {
        **COUPLINGS["all on"],
        "seeds.learn_memory": False,
        "seeds.correct_background": False,
        "seeds.grow": False,
    },
}
"""Settings of each row."""

MEASURES = ("HOTA", "J", "switches", "ms")


class Row:
    """One engine and the scores of what it makes final."""

    def __init__(self, config: EngineConfig, network: Network) -> None:
        self.pipeline = Pipeline(config, network)
        self._ids = TrackingScore()
        self._js: list[float] = []
        self._ms: list[float] = []

    def timed(self) -> None:
        """Note what the seeds took in the step just taken."""
        self._ms.append(self.pipeline.timing_ms["seeds"])

    def take(self, scenes: list[Scene], truths: dict[int, np.ndarray]) -> None:
        """Score the final ones against truth, integer [H / 4, W / 4] per frame."""
        for scene in scenes:
            if scene.kind == "final":
                truth = truths[scene.frame_index]
                self._ids.add(compare(truth, id_map(scene)[::EVERY, ::EVERY]))
                self._js.append(iou(truth > 0, foreground_map(scene)[::EVERY, ::EVERY] > 0))

    def figures(self) -> dict[str, float]:
        """Every measure of the video."""
        return {
            "HOTA": round(self._ids.hota()["HOTA"], 4),
            "J": round(statistics.fmean(self._js), 4),
            "switches": self._ids.switches(),
            "ms": round(statistics.median(self._ms), 3),
        }


def score_scene(seed: int, frames: int, base: EngineConfig, network: Network) -> dict[str, dict[str, float]]:
    """Figures of every row on one built-in scene."""
    eyes = Pipeline(base, network)
    rows = {name: Row(configuration.apply(base, settings), network) for name, settings in ROWS.items()}
    truths: dict[int, np.ndarray] = {}
    for frame, truth in demo_frames(seed, frames):
        truths[frame.index] = truth[::EVERY, ::EVERY]
        percepts = eyes.perceive(frame)
        for row in rows.values():
            row.take(row.pipeline.decide(frame, percepts), truths)
            row.timed()
    for row in rows.values():
        row.take(row.pipeline.flush(), truths)
    return {name: row.figures() for name, row in rows.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report's content.

    Raises:
        UsageError: no seeds.
    """
    if not options.seeds:
        raise UsageError("--seeds is empty: give at least one")
    base = engine_config(options.set)
    network = Network(resolve_model(options.model), threads=base.perceive.threads)
    scenes = {seed: score_scene(seed, options.frames, base, network) for seed in options.seeds}
    return {
        "model": {"name": network.name, "hash": network.hash},
        "frames": options.frames,
        "rows": {
            name: {
                "mean": {
                    key: round(statistics.fmean(scene[name][key] for scene in scenes.values()), 4) for key in MEASURES
                },
                "scenes": {f"seed {seed}": scene[name] for seed, scene in scenes.items()},
            }
            for name in ROWS
        },
    }


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    title = f"built-in scene, {content['frames']} frames, model {content['model']['name']} {content['model']['hash']}"
    table = Table("couplings", title=title, title_justify="left")
    for name in MEASURES:
        table.add_column(name, justify="right")
    for name, row in content["rows"].items():
        mean = row["mean"]
        table.add_row(name, f"{mean['HOTA']:.3f}", f"{mean['J']:.3f}", f"{mean['switches']:.1f}", f"{mean['ms']:.2f}")
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=seed_list, default=[110, 112, 113])
    parser.add_argument("--frames", type=at_least(3), default=300, help="of each seed")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as the engine")
    options = parser.parse_args(arguments)
    try:
        content = measure(options)
        show(content, Console(width=100))
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
