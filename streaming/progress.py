"""The progress line of a run: frames, fps, latency, objects."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from engine.scene import Scene
from streaming.report import Report

_REFRESH_FRAMES = 5
"""Frames between updates of the text: a terminal cannot be read faster, and rendering costs time."""


class RunProgress:
    """A bar for sources of known length, a spinner for live ones; silent when stderr is no terminal.

    Args:
        title: display name of the source, credentials already removed.
        total: frames to expect, None for live sources.
        report: statistics to show.
    """

    def __init__(self, title: str, total: int | None, report: Report) -> None:
        self._report = report
        console = Console(stderr=True)
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        if total is None:
            columns = [SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn()]
        self._progress = Progress(
            *columns,
            TextColumn("{task.fields[state]}"),
            console=console,
            refresh_per_second=5,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(title, total=total, state="")

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, scenes: list[Scene]) -> None:
        """Show the state after one frame."""
        frames = self._report.frames
        if frames % _REFRESH_FRAMES:
            return
        objects = len(scenes[-1].objects) if scenes else 0
        state = f"{self._report.fps:5.1f} fps  {self._report.latency_ms:5.1f} ms  {objects} objects"
        self._progress.update(self._task, completed=frames, state=state)


def print_profile(report: Report) -> None:
    """The `--profile` table on stderr: percentiles of every stage."""
    table = Table(title="latency, ms (warm-up left out)")
    table.add_column("stage")
    for name in ("p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    content = report.to_dict()
    rows = {**content["latency_ms"], "age (capture → publish)": content["age_ms"]}
    for stage, values in rows.items():
        table.add_row(stage, *(f"{values[name]:.2f}" for name in ("p50", "p95", "p99", "max")))
    Console(stderr=True).print(table)
