"""Variants of MuG's training: without each granularity, one to three rounds of bootstrapping, and other seeds."""

import json
from pathlib import Path

from engine.errors import UsageError
from learning.mug.plan import GRANULARITIES
from learning.mug.train import train as train_mug

OPTIONS = {
    "full": ["--rounds", "2", "--seed", "0"],
    **{f"full-seed-{seed}": ["--rounds", "2", "--seed", str(seed)] for seed in (1, 2)},
    **{f"without-{name}": ["--rounds", "2", "--seed", "0", "--without", name] for name in GRANULARITIES},
    "one-round": ["--rounds", "1", "--seed", "0"],
    "three-rounds": ["--rounds", "3", "--seed", "0"],
}
"""Name of a variant and what its training is told besides data and steps. What `full` differs by from itself with
another seed is what chance may do."""

HELD = ("agreement", "short", "long", "video")
"""Figures on held-out clips: agreement with the initial maps, and the losses that are not the maps' own."""


def variants(folder: Path) -> dict[str, Path]:
    """Folder of every variant that has been trained to its end, in the order of `OPTIONS`."""
    found = {name: folder / name for name in OPTIONS}
    return {name: path for name, path in found.items() if (path / "report.html").exists()}


def held_out(folder: Path) -> dict[str, float]:
    """The `HELD` figures a training ended with; empty where no clip was held out."""
    history = folder / "history.json"
    last = json.loads(history.read_text(encoding="utf-8"))[-1] if history.exists() else {}
    return {f"held {name}": float(last[f"held {name}"]) for name in HELD if f"held {name}" in last}


def train_missing(folder: Path, clips: Path | None, cache: Path | None, steps: int) -> None:
    """Train every variant that is not there yet, one after the other; without `clips` those that are there do.

    Raises:
        UsageError: nothing there and no clips to learn from.
    """
    there = variants(folder)
    if clips is None:
        if not there:
            raise UsageError(f"--ablations {folder}: holds no trained variant; give --clips to train them")
        return
    for name, options in OPTIONS.items():
        if name not in there:
            data = ["--clips", str(clips), "--cache", str(cache or folder / "bursts")]
            length = ["--steps", str(steps), "--out", str(folder / name)]
            train_mug([*data, *length, *options])
