"""Mask quality of the whole engine on annotated footage (streaming and causal) and on photographs.

    python -m benchmarks.quality --data DATA [--json FILE] [--parts davis,multi,highway,bins,animals,coco]
        [--overlays DIR] [--contact-sheet FILE.jpg] [--ablations] [--model FILE] [--frames N]

DATA holds davis_dev/ davis_multi/ highway/ bins/ animals/ coco/, whichever are there, or is a folder in the DAVIS
layout itself. The shipped model has seen animals/ and coco/ in training, nothing of the others.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine
from benchmarks.ablations import Ablation, ablations
from benchmarks.contact_sheet import Tile, tiles, write_sheet
from benchmarks.davis import Sequence, change_sequence, sequences
from benchmarks.footage import ForegroundJudge, InstanceJudge, Judge, MovingJudge, Recorder, run_sequence
from benchmarks.options import at_least, engine_config
from benchmarks.stills import score_stills
from engine import config as configuration
from engine.errors import EngineError, SourceError, StoreError, UsageError
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline

FOLDERS = {
    "davis": "davis_dev",
    "multi": "davis_multi",
    "highway": "highway",
    "bins": "bins",
    "animals": "animals",
    "coco": "coco",
}
"""Parts of the report and where DATA keeps them."""

STILLS = ("bins", "animals", "coco")
TRAINED_ON = ("animals", "coco")
"""Folders whose images and masks trained the shipped model: figures there describe training, not new objects."""

KINDS = ("final", "provisional")
MEASURES = ("J_fg", "F_fg", "J_best_id")
_SHEET_TILES = 20


class Run:
    """The options of one run and what it has found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.config = engine_config(options.set)
        self.network = Network(resolve_model(options.model), threads=self.config.perceive.threads)
        self.tiles: list[Tile] = []

    def sequence(self, part: str, sequence: Sequence) -> dict[str, Any]:
        """Scores of one sequence, its overlay video and its worst frames."""
        main = MovingJudge() if part == "highway" else ForegroundJudge()
        judges: list[Judge] = [main]
        if part == "multi":
            judges.append(InstanceJudge())
        recorder = Recorder() if self.options.contact_sheet else None
        if recorder is not None:
            judges.append(recorder)
        overlay = self.options.overlays and self.options.overlays / f"{sequence.name}.mp4"
        row = run_sequence(sequence, Pipeline(self.config, self.network), judges, overlay)
        if recorder is not None:
            self.tiles += tiles(sequence, main.scores["final"].frames, recorder, moving_only=part == "highway")
        return row

    def stills(self, part: str, folder: Path) -> dict[str, Any]:
        """AP and AR of a folder of photographs."""
        overlays = None
        if self.options.overlays:
            overlays = self.options.overlays / part
            overlays.mkdir(exist_ok=True)
        row = score_stills(folder, self.config, self.network, self.options.images, overlays)
        return {"trained_on": part in TRAINED_ON, **row}


def part_folders(data: Path, wanted: str | None) -> dict[str, Path]:
    """Folder of every part to run.

    Args:
        wanted: names separated by commas; None for all that DATA has.

    Raises:
        UsageError: a name that is no part.
        SourceError: DATA or a part asked for is not there, or none is.
    """
    if not data.is_dir():
        raise SourceError(f"{data}: no such folder")
    names = list(FOLDERS) if wanted is None else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in FOLDERS:
            raise UsageError(f"--parts {name}: unknown{configuration.nearest(name, FOLDERS)}")
    found = {name: data / FOLDERS[name] for name in names if (data / FOLDERS[name]).is_dir()}
    if "davis" in names and "davis" not in found and (data / "JPEGImages").is_dir():
        found["davis"] = data
    missing = [name for name in names if name not in found]
    if wanted is not None and missing:
        raise SourceError(f"{data}: no {FOLDERS[missing[0]]}/ (needed by --parts {missing[0]})")
    if not found:
        raise SourceError(f"{data}: holds none of {', '.join(FOLDERS.values())} and is not in the DAVIS layout")
    return {name: found[name] for name in names if name in found}


def part_sequences(part: str, folder: Path, options: argparse.Namespace) -> list[Sequence]:
    """The sequences of a part, cut to `--frames` and to the names of `--only`."""
    if part == "highway":
        found = [change_sequence(folder)]
    else:
        found = list(sequences(folder, "" if part == "multi" else "480p"))
    only = options.only.split(",") if options.only else None
    return [s.first(options.frames) for s in found if only is None or s.name in only]


def means(rows: dict[str, Any]) -> dict[str, float]:
    """Mean over sequences of every measure of both kinds, keyed "final J_fg"."""
    return {
        f"{kind} {measure}": round(float(np.mean([row[kind][measure] for row in rows.values()])), 4)
        for kind in KINDS
        for measure in MEASURES
    }


def run_ablation(ablation: Ablation, footage: list[Sequence], before: dict[str, float]) -> dict[str, Any]:
    """The sequences through a variant of the engine, and how far its means lie from those of the whole engine."""
    rows = {
        s.name: run_sequence(s, ablation.pipeline(), [ForegroundJudge()]) for s in _progress(ablation.name, footage)
    }
    after = means(rows)
    return {
        "meaning": ablation.meaning,
        "model": ablation.model,
        "before": before,
        "after": after,
        "change": {key: round(after[key] - before[key], 4) for key in before},
        "sequences": rows,
    }


def measure(run: Run) -> dict[str, Any]:
    """Everything asked for, as the report's content."""
    options = run.options
    folders = part_folders(options.data, options.parts)
    if options.ablations and "davis" not in folders:
        raise UsageError("--ablations: compares the sequences of --parts davis, which this run does not have")
    variants = ablations(run.config, options.model, options.ablation_model) if options.ablations else []
    content: dict[str, Any] = {
        "model": {"name": run.network.name, "hash": run.network.hash},
        "config": configuration.flatten(run.config),
    }
    footage = {name: part_sequences(name, folders[name], options) for name in folders if name not in STILLS}
    if footage and not any(footage.values()):
        raise UsageError(f"--only {options.only}: no sequence of that name in {', '.join(footage)}")
    for part, folder in folders.items():
        if part in STILLS:
            content.setdefault("stills", {})[part] = run.stills(part, folder)
        elif footage[part]:
            rows = {s.name: run.sequence(part, s) for s in _progress(part, footage[part])}
            if part == "davis":
                content |= {"mean": means(rows), "sequences": rows}
            else:
                content[part] = rows
    if variants and footage["davis"]:
        content["ablations"] = {v.name: run_ablation(v, footage["davis"], content["mean"]) for v in variants}
    if options.contact_sheet and run.tiles:
        write_sheet(options.contact_sheet, run.tiles, _SHEET_TILES)
    return content


def _progress(description: str, items: list[Sequence]) -> Any:
    console = Console(stderr=True)
    return track(items, description=description, console=console, transient=True, disable=not console.is_terminal)


def show(content: dict[str, Any], console: Console) -> None:
    """Print every part's table."""
    model = f"model {content['model']['name']} {content['model']['hash']}"
    for part, show_part in (("sequences", _davis), ("multi", _multi), ("highway", _highway), ("stills", _stills)):
        if part in content:
            console.print(show_part(content, model))
    if "ablations" in content:
        console.print(_ablations(content))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index == 0)
    return table


def _figures(row: dict[str, Any], kinds: tuple[str, ...] = KINDS) -> list[str]:
    return [f"{row[kind][measure]:.3f}" for kind in kinds for measure in MEASURES]


def _davis(content: dict[str, Any], model: str) -> Table:
    columns = [f"{kind} {measure}" for kind in KINDS for measure in MEASURES]
    table = _table(f"davis, {model}", "sequence", "frames", *columns, "exact / forced")
    for name, row in content["sequences"].items():
        commits = f"{row['commits_exact']} / {row['commits_forced']}"
        table.add_row(name, str(row["frames"]), *_figures(row), commits)
    table.add_row("mean", "", *(f"{content['mean'][column]:.3f}" for column in columns), "")
    return table


def _multi(content: dict[str, Any], model: str) -> Table:
    names = ("best_candidate", "best_mask", "best_id")
    table = _table(f"multi: best IoU per instance, {model}", "sequence", "instance", "frames", *names)
    for name, row in content["multi"].items():
        for number, item in enumerate(row["instances"], start=1):
            figures = (f"{item[key]:.3f}" for key in names)
            table.add_row(name, str(number), str(item["frames"]), *figures)
        table.add_row(name, "mean", str(row["frames"]), *(f"{row[key]:.3f}" for key in names))
    return table


def _highway(content: dict[str, Any], model: str) -> Table:
    names = ("J_fg", "J_pooled", "precision", "recall")
    table = _table(f"highway: moving pixels, {model}", "sequence", "frames", "kind", *names)
    for name, row in content["highway"].items():
        for kind in KINDS:
            table.add_row(name, str(row["frames"]), kind, *(f"{row[kind][key]:.3f}" for key in names))
    return table


def _stills(content: dict[str, Any], model: str) -> Table:
    names = ("AP", "AP50", "AP75", "AR@10", "AR@20", "AR@100")
    table = _table(f"stills: no motion, one class, {model}", "folder", "images", "instances", "masks", *names)
    for name, row in content["stills"].items():
        shown = f"{name} (trained on)" if row["trained_on"] else name
        for kind in ("network", "candidates", "published"):
            figures = ("unknown" if row[kind][key] is None else f"{row[kind][key]:.3f}" for key in names)
            table.add_row(shown, str(row["images"]), str(row["instances"]), kind, *figures)
    return table


def _ablations(content: dict[str, Any]) -> Table:
    names = [f"final {measure}" for measure in MEASURES]
    table = _table("ablations: davis means", "variant", *names, "change of J_fg", "what is missing")
    table.columns[-1].justify = "left"
    table.add_row("whole engine", *(f"{content['mean'][key]:.3f}" for key in names), "", "nothing")
    for name, row in content["ablations"].items():
        change = f"{row['change'][names[0]]:+.3f}"
        table.add_row(name, *(f"{row['after'][key]:.3f}" for key in names), change, row["meaning"])
    return table


def _named_model(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not name or not separator or not path:
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=FILE")
    return name, path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", help=f"of {','.join(FOLDERS)}; default: all that DATA has")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every sequence only")
    parser.add_argument(
        "--images", type=at_least(1), default=100, metavar="N", help="at most N photographs per folder, evenly spaced"
    )
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="a video per sequence, a picture per photograph,\nwith the final masks (photographs: and the annotation)",
    )
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.jpg", help="the worst frames and what causes them")
    parser.add_argument("--ablations", action="store_true", help="davis again with one part of the engine taken away")
    parser.add_argument(
        "--ablation-model",
        type=_named_model,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="one more ablation: another model",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the report and the pictures; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.ablation_model and not options.ablations:
            raise UsageError("--ablation-model: needs --ablations")
        try:
            if options.overlays:
                options.overlays.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--overlays {options.overlays}: {error.strerror or error}") from None
        content = measure(Run(options))
        show(content, Console(width=140))
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
