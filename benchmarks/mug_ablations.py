"""Variants of MuG's training: without each granularity, and one to three rounds of bootstrapping."""

from pathlib import Path

from engine.errors import UsageError
from learning.mug.train import GRANULARITIES
from learning.mug.train import train as train_mug

SEED = 0

OPTIONS = {
    "full": ["--rounds", "2"],
    **{f"without-{name}": ["--rounds", "2", "--without", name] for name in GRANULARITIES},
    "one-round": ["--rounds", "1"],
    "three-rounds": ["--rounds", "3"],
}
"""Name of a variant and what its training is told besides data, steps and seed."""


def variants(folder: Path) -> dict[str, Path]:
    """Folder of every variant that has been trained to its end, in the order of `OPTIONS`."""
    found = {name: folder / name for name in OPTIONS}
    return {name: path for name, path in found.items() if (path / "report.html").exists()}


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
            length = ["--steps", str(steps), "--seed", str(SEED), "--out", str(folder / name)]
            train_mug([*data, *length, *options])
