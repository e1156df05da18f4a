"""Which background cue serves the engine: J_fg and J_best_id with each, everything else the same.

    python -m benchmarks.background --data DATA [--cues network,amd,mug,seeds,uniform] [--json FILE] [--frames N]

DATA holds davis_dev/. A cue may also be a FILE.onnx. Cues without a file are named and left out.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import sequences
from benchmarks.footage import ForegroundJudge, run_sequence
from benchmarks.options import at_least, engine_config
from engine import config as configuration
from engine.errors import EngineError, UsageError
from engine.perceive.background import CUES, TEACHERS, background_settings, open_background, teacher_file
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline

MEASURES = ("J_fg", "F_fg", "J_best_id")


def measure(options: argparse.Namespace, cue: str, console: Console) -> dict[str, Any]:
    """Every sequence with one cue.

    Raises:
        EngineError: the cue cannot be opened, or the footage not be read.
    """
    config = configuration.apply(engine_config(options.set), background_settings(cue))
    network = Network(resolve_model(options.model), threads=config.perceive.threads)
    background = open_background(cue, threads=config.perceive.threads)
    wanted = options.only.split(",") if options.only else None
    rows = {}
    for sequence in sequences(options.data / "davis_dev"):
        if wanted is None or sequence.name in wanted:
            pipeline = Pipeline(config, network, background=background)
            rows[sequence.name] = run_sequence(sequence.first(options.frames), pipeline, [ForegroundJudge()])
            figures = " ".join(f"{m} {rows[sequence.name]['final'][m]:.3f}" for m in MEASURES)
            console.print(f"{cue} {sequence.name}: {figures}", highlight=False)
    if not rows:
        raise UsageError(f"--only {options.only}: no sequence of that name")
    mean = {m: round(float(np.mean([row["final"][m] for row in rows.values()])), 4) for m in MEASURES}
    return {"mean": mean, "sequences": rows}


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table of means and J_fg per sequence."""
    table = Table("cue", *MEASURES, title="davis_dev, final masks, mean over sequences", title_justify="left")
    for cue, found in content.items():
        table.add_row(cue, *(f"{found['mean'][m]:.3f}" for m in MEASURES))
    console.print(table)
    each = Table("sequence", *content, title="J_fg", title_justify="left")
    for name in next(iter(content.values()))["sequences"]:
        each.add_row(name, *(f"{found['sequences'][name]['final']['J_fg']:.3f}" for found in content.values()))
    console.print(each)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cues", default=",".join(CUES), help=f"of {','.join(CUES)}, or files, comma separated")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every sequence only")
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    try:
        content: dict[str, Any] = {}
        for cue in options.cues.split(","):
            if cue in TEACHERS and not teacher_file(cue).is_file():
                console.print(f"{cue}: engine/models/{cue}.onnx is not there, left out")
                continue
            content[cue] = measure(options, cue, console)
        if not content:
            raise UsageError(f"--cues {options.cues}: none of them can be measured")
        show(content, console)
        machine.write_report(options.json, {"frames": options.frames, "cues": content})
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
