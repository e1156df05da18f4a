"""Mask quality of the whole engine, streaming and causal, on sequences in the DAVIS layout.

    python -m benchmarks.quality --data DATA --json FILE [--overlays DIR]

DATA holds davis_dev/ (or is such a folder itself). Nothing was trained or tuned on these frames.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import Sequence, SequenceScore, sequences
from engine import config as configuration
from engine.errors import EngineError
from engine.frame import Frame
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.overlay import draw_overlay
from streaming.sinks.masks import foreground_map, id_map


def run_sequence(
    sequence: Sequence, pipeline: Pipeline, overlays: Path | None
) -> dict[str, dict[str, float] | float | int]:
    """Scores of final and provisional masks of one sequence through `Pipeline.step`."""
    scores = {"final": SequenceScore(), "provisional": SequenceScore()}
    exact = forced = 0
    last = len(sequence.frames) - 1
    start = time.perf_counter()

    def take(scenes: list[Scene]) -> None:
        nonlocal exact, forced
        for scene in scenes:
            if scene.commit is not None:
                exact, forced = exact + scene.commit.exact, forced + (not scene.commit.exact)
            if 0 < scene.frame_index < last:
                truth = sequence.truth(scene.frame_index) > 0
                scores[scene.kind].add(truth, foreground_map(scene) > 0, id_map(scene))
            if overlays is not None and scene.kind == "final" and scene.frame_index % 10 == 5:
                image = cv2.imread(str(sequence.frames[scene.frame_index]))
                picture = draw_overlay(image, scene.labels, scene.objects, scale=0.5)
                cv2.imwrite(str(overlays / f"{sequence.name}_{scene.frame_index:05d}.jpg"), picture)

    for index, path in enumerate(sequence.frames):
        take(pipeline.step(Frame(cv2.imread(str(path)), index, time.time_ns(), sequence.name)))
    take(pipeline.flush())
    return {
        "frames": scores["final"].frames,
        **{
            kind: {"J_fg": round(score.j_fg, 4), "J_best_id": round(score.j_best_id, 4)}
            for kind, score in scores.items()
        },
        "commits_exact": exact,
        "commits_forced": forced,
        "seconds": round(time.perf_counter() - start, 2),
    }


def main() -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--overlays", type=Path, help="write every tenth frame with its masks")
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    try:
        settings = dict(item.split("=", 1) for item in options.set)
        config = configuration.apply(configuration.EngineConfig(), settings)
        network = Network(resolve_model(options.model), threads=config.perceive.threads)
        folder = options.data / "davis_dev" if (options.data / "davis_dev").is_dir() else options.data
        if options.overlays:
            options.overlays.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {}
        for sequence in sequences(folder):
            if options.only is None or sequence.name in options.only.split(","):
                result[sequence.name] = run_sequence(sequence, Pipeline(config, network), options.overlays)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table = Table(title=f"{folder.name}, model {network.name} {network.hash}")
    columns = ("final J_fg", "final J_best_id", "provisional J_fg", "provisional J_best_id")
    for column in ("sequence", "frames", *columns, "exact / forced"):
        table.add_column(column, justify="left" if column == "sequence" else "right")
    keys = [tuple(column.split()) for column in columns]
    for name, row in result.items():
        commits = f"{row['commits_exact']} / {row['commits_forced']}"
        table.add_row(name, str(row["frames"]), *(f"{row[a][b]:.3f}" for a, b in keys), commits)
    mean = {f"{a} {b}": float(np.mean([row[a][b] for row in result.values()])) for a, b in keys}
    table.add_row("mean", "", *(f"{mean[column]:.3f}" for column in columns), "")
    Console(width=120).print(table)
    content = {
        "model": {"name": network.name, "hash": network.hash},
        "config": configuration.flatten(config),
        "mean": {key: round(value, 4) for key, value in mean.items()},
        "sequences": result,
    }
    machine.write_report(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
