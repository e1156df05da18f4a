"""What the seeds say together: table, checks and plot."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.unseen.experiment import BEFORE, CONTROL, ROWS, Row
from benchmarks.unseen.labels import ENGINES, OURS
from benchmarks.unseen.scores import FIGURES, efficiency, spread
from engine.errors import StoreError

BASELINES = ("score threshold", "Data Distillation", "frame-by-frame tracking")
BY_TRUTH = "selection by truth"

PAPER_EFFICIENCY = 0.46
"""(39.0 - 35.8) / (42.7 - 35.8), tables 1 and 2 of the paper."""

MAX_SEEN_DROP = 0.5
"""Points of AP that the seen family may lose."""

REAL_AND_RENDERED = (
    "Objects are rendered (pybullet): seen family boxes, cylinders, cones and balls in plain colours; unseen family "
    "pybullet's 1,000 random meshes with patterns and pieces of photographs, other meshes in the held-out stills than "
    "in the videos. Backgrounds are real photographs and surfaces, different ones for training, videos and held-out "
    "stills. Motion is simulated: the camera pans over the photograph, objects drift and turn each their own way."
)


def summarise(seeds: dict[int, dict[str, Row]]) -> dict[str, Any]:
    """Means and sample standard deviations over seeds, efficiencies and what had to be shown."""
    rows = {
        row: {
            part: {name: spread(found[row][part][name] for found in seeds.values()) for name in FIGURES}
            for part in ("unseen", "seen")
        }
        for row in ROWS
    }
    checks = {seed: _checks(found) for seed, found in seeds.items()}
    mean = {row: {part: rows[row][part]["AP"][0] for part in ("unseen", "seen")} for row in ROWS}
    return {
        "mean_and_spread": rows,
        "per_seed": checks,
        "efficiency_of_means": efficiency(mean[OURS]["unseen"], mean[BEFORE]["unseen"], mean[BY_TRUTH]["unseen"]),
        "efficiency_over_control": efficiency(mean[OURS]["unseen"], mean[CONTROL]["unseen"], mean[BY_TRUTH]["unseen"]),
        "wanted": {"efficiency": PAPER_EFFICIENCY, "max_seen_drop": MAX_SEEN_DROP},
    }


def _checks(found: dict[str, Row]) -> dict[str, Any]:
    unseen = {row: found[row]["unseen"]["AP"] for row in ROWS}
    drop = found[BEFORE]["seen"]["AP"] - found[OURS]["seen"]["AP"]
    reached = efficiency(unseen[OURS], unseen[BEFORE], unseen[BY_TRUTH])
    return {
        "efficiency": reached,
        "efficiency_reached": reached is not None and reached >= PAPER_EFFICIENCY,
        "seen_drop": drop,
        "seen_kept": drop <= MAX_SEEN_DROP,
        "better_than": {row: unseen[OURS] > unseen[row] for row in (BEFORE, CONTROL, *BASELINES)},
    }


def print_table(summary: dict[str, Any], seeds: int) -> None:
    """The tables of the paper on the terminal; ± is the spread over seeds."""
    table = Table(title=f"unseen family, {seeds} seed(s), mean ± spread")
    table.add_column("labels by", no_wrap=True)
    for name in (*FIGURES, "seen AP"):
        table.add_column(name, justify="right")
    for row in ROWS:
        if row == next(name for name in ENGINES if name != OURS):
            table.add_section()
        figures = summary["mean_and_spread"][row]
        cells = [figures["unseen"][name] for name in FIGURES] + [figures["seen"]["AP"]]
        table.add_row(row, *(f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in cells))
        if row == list(ENGINES)[-1]:
            table.add_section()
    console = Console(width=140)
    console.print(table)
    for seed, checks in summary["per_seed"].items():
        worse = [name for name, better in checks["better_than"].items() if not better]
        console.print(
            f"seed {seed}: selection efficiency {_share(checks['efficiency'])} (paper {PAPER_EFFICIENCY}), "
            f"seen AP drop {checks['seen_drop']:.1f} (at most {MAX_SEEN_DROP}), "
            + (f"not better than {', '.join(worse)}" if worse else "better than every baseline")
        )
    console.print(f"selection efficiency of the means: {_share(summary['efficiency_of_means'])}")


def _share(value: float | None) -> str:
    return "not defined (nothing to gain)" if value is None else f"{value:.2f}"


_WIDTH, _ROW, _LEFT, _TOP = 1000, 34, 330, 50
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def plot(summary: dict[str, Any], seeds: dict[int, dict[str, Row]], path: Path) -> None:
    """Bars of the mean unseen AP with a dot per seed.

    Raises:
        StoreError: it cannot be written.
    """
    canvas = np.full((_TOP + _ROW * len(ROWS) + 40, _WIDTH, 3), 255, np.uint8)
    values = {row: [found[row]["unseen"]["AP"] for found in seeds.values()] for row in ROWS}
    top = max(max(v) for v in values.values())
    step = 5 if top > 12 else 1
    limit = max(step, float(np.ceil(top / step) * step))

    def x_of(value: float) -> int:
        return round(_LEFT + (_WIDTH - _LEFT - 80) * value / limit)

    cv2.putText(
        canvas, "AP on held-out stills of the unseen family", (_LEFT, 24), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA
    )
    bottom = _TOP + _ROW * len(ROWS)
    for tick in np.arange(0, limit + 1e-6, step):
        cv2.line(canvas, (x_of(tick), _TOP - 6), (x_of(tick), bottom), (225, 225, 225), 1)
        cv2.putText(canvas, f"{tick:g}", (x_of(tick) - 8, bottom + 22), _FONT, 0.5, (90, 90, 90), 1, cv2.LINE_AA)
    for number, row in enumerate(ROWS):
        y = _TOP + _ROW * number
        mean, deviation = summary["mean_and_spread"][row]["unseen"]["AP"]
        cv2.rectangle(canvas, (_LEFT, y + 6), (x_of(mean), y + _ROW - 6), _colour(row), -1)
        cv2.putText(canvas, row, (12, y + 22), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for value in values[row]:
            cv2.circle(canvas, (x_of(value), y + _ROW // 2), 4, (40, 40, 40), -1, cv2.LINE_AA)
        text = f"{mean:.1f}" + (f" +- {deviation:.1f}" if len(seeds) > 1 else "")
        at = (x_of(max(*values[row], mean)) + 9, y + 22)
        cv2.putText(canvas, text, at, _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), canvas):
        raise StoreError(f"{path}: cannot be written; give another --json")


def _colour(row: str) -> tuple[int, int, int]:
    """BGR: ours stands out, what looks at the truth is gray."""
    if row == OURS:
        return (80, 160, 40)
    if row in ENGINES:
        return (150, 205, 130)
    if row in (BY_TRUTH, "training on truth"):
        return (190, 190, 190)
    return (200, 160, 110)
