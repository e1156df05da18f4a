"""What MuG learns from unlabelled clips: object level, instance level, one-shot, and what every part contributes.

    python -m benchmarks.mug --data DATA --run RUN [--json FILE] [--parts objects,instances,one-shot] [--every N]
        [--ablations DIR [--clips CLIPS --cache BURSTS --steps N]]

DATA holds davis_dev/ (and davis_multi/) or is a folder in the DAVIS layout; RUN is a run of
`python -m learning.pretrain --objective mug`: its round1.pt, round2.pt … are compared with the saliency they began
with and with a network that learned nothing. Maps are cut at one half, saliency by Otsu's threshold; the first and
the last frame are not scored.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import Sequence, sequences
from benchmarks.measures import InstanceScore, SequenceScore, boundary_f, iou
from benchmarks.mug_ablations import HELD, held_out, train_missing, variants
from benchmarks.options import at_least
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline
from learning.mug.bursts import SIZE
from learning.mug.instances import InstanceReadOut
from learning.mug.model import load_model
from learning.mug.one_shot import OneShot
from learning.mug.readout import ObjectReadOut, features, whole_video
from learning.mug.saliency import binary_saliency, saliency
from learning.networks.mug import Mug

PARTS = ("objects", "instances", "one-shot")
READ_OUTS = ("frame alone", "memory of 8", "whole video")

Row = dict[str, float]


class Tally:
    """J and F of named maps over one sequence."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[float, float]]] = {}

    def add(self, name: str, truth: np.ndarray, mask: np.ndarray) -> None:
        """One frame: bool [H, W] each."""
        self._rows.setdefault(name, []).append((iou(truth, mask), boundary_f(truth, mask)))

    def figures(self) -> dict[str, Row]:
        """Means over the frames."""
        return {
            name: {"J": float(np.mean([j for j, _ in rows])), "F": float(np.mean([f for _, f in rows]))}
            for name, rows in self._rows.items()
        }


def enlarged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map float32 [h, w] at `size` (rows, columns)."""
    return cv2.resize(values, size[1::-1], interpolation=cv2.INTER_LINEAR)


def networks(run: Path | None) -> dict[str, Mug]:
    """A network that learned nothing, and the one after every round of a run.

    Raises:
        SourceError: the run holds no rounds.
    """
    torch.manual_seed(0)
    found = {"untrained": Mug().eval()}
    if run is not None:
        paths = sorted(run.glob("round*.pt"))
        if not paths:
            raise SourceError(f"--run {run}: holds no round1.pt; give the --out of a run that finished a round")
        found |= {f"after round {path.stem.removeprefix('round')}": load_model(path) for path in paths}
    return found


def scored(sequence: Sequence, every: int) -> Iterator[int]:
    """Frames to score: every `every`-th but the first and the last."""
    return iter(range(1, len(sequence.frames) - 1, every))


def object_level(sequence: Sequence, models: dict[str, Mug], every: int, with_saliency: bool) -> dict[str, Row]:
    """J and F of every model's three read-outs, and of saliency, on one sequence."""
    frames = range(len(sequence.frames))
    images = [cv2.resize(sequence.image(i), SIZE[::-1], interpolation=cv2.INTER_AREA) for i in frames]
    truths = {i: sequence.truth(i) > 0 for i in scored(sequence, every)}
    tally = Tally()
    if with_saliency:
        for i, truth in truths.items():
            mask = binary_saliency(saliency(images[i])).astype(np.float32)
            tally.add("saliency", truth, enlarged(mask, truth.shape) > 0.5)
    for name, network in models.items():
        streaming = ObjectReadOut(network)
        seen = [features(network, image) for image in images]
        every_map = (*zip(*(streaming.read(x) for x in seen), strict=True), whole_video(network, seen))
        for read_out, maps in zip(("memory of 8", "frame alone", "whole video"), every_map, strict=True):
            for i, truth in truths.items():
                tally.add(f"{name}, {read_out}", truth, enlarged(maps[i], truth.shape) > 0.5)
    return tally.figures()


def instance_level(sequence: Sequence, network: Mug, engine: Network, every: int) -> Row:
    """Linked proposals on the foreground: J_fg, F_fg and J_best_id against the merged annotation, and per instance."""
    pipeline, foreground, linked = Pipeline(EngineConfig(), engine), ObjectReadOut(network), InstanceReadOut()
    merged, each = SequenceScore(), InstanceScore()
    wanted = set(scored(sequence, every))
    for index in range(len(sequence.frames)):
        image = sequence.image(index)
        percepts = pipeline.perceive(Frame(image, index, index, sequence.name))
        small = linked.step(percepts, foreground.step(image)[0])
        if index in wanted:
            truth = sequence.truth(index)
            ids = cv2.resize(small, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
            merged.add(index, truth > 0, ids > 0, ids)
            each.add(truth, np.empty((0, *truth.shape), bool), ids)
    figures = {"J_fg": merged.j_fg, "F_fg": merged.f_fg, "J_best_id": merged.j_best_id}
    return figures | {f"per instance, {key}": value for key, value in each.means().items() if key != "best_candidate"}


def one_shot(sequence: Sequence, network: Mug, every: int) -> Row:
    """J and F, means over the objects of the first frame, of labels handed on by affinity."""
    follower = OneShot(network, sequence.image(0), sequence.truth(0))
    wanted = set(scored(sequence, every))
    objects = [int(value) for value in follower.values if value]
    tally = Tally()
    for index in range(1, len(sequence.frames) - 1):
        labels = follower.step(sequence.image(index))
        if index in wanted:
            truth = sequence.truth(index)
            for value in objects:
                tally.add(str(value), truth == value, labels == value)
    rows = list(tally.figures().values())
    return {key: float(np.mean([row[key] for row in rows])) for key in ("J", "F")}


def merged_sequences(data: Path, frames: int | None) -> list[Sequence]:
    """davis_dev, or DATA itself where it is in the DAVIS layout."""
    folder = data / "davis_dev" if (data / "davis_dev").is_dir() else data
    return [sequence.first(frames) for sequence in sequences(folder)]


def multi_sequences(data: Path, frames: int | None) -> list[Sequence]:
    """davis_multi where DATA has it."""
    folder = data / "davis_multi"
    return [sequence.first(frames) for sequence in sequences(folder, "")] if folder.is_dir() else []


def mean_rows(rows: dict[str, dict[str, Row]]) -> dict[str, Row]:
    """Means over sequences of {sequence: {name: {measure: value}}}."""
    names = next(iter(rows.values())) if rows else {}
    return {
        name: {key: round(float(np.mean([row[name][key] for row in rows.values()])), 4) for key in names[name]}
        for name in names
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, as the report's content."""
    parts = [name.strip() for name in options.parts.split(",") if name.strip()]
    if unknown := [name for name in parts if name not in PARTS]:
        raise UsageError(f"--parts {unknown[0]}: unknown; choose of {', '.join(PARTS)}")
    models = networks(options.run)
    last = list(models)[-1]
    footage = merged_sequences(options.data, options.frames)
    content: dict[str, Any] = {"model": last, "every": options.every}
    if "objects" in parts:
        rows = {s.name: object_level(s, models, options.every, True) for s in footage}
        content["objects"] = {"mean": mean_rows(rows), "sequences": rows}
    if "instances" in parts:
        engine = Network(resolve_model(None))
        both = [*footage, *multi_sequences(options.data, options.frames)]
        content["instances"] = {s.name: instance_level(s, models[last], engine, options.every) for s in both}
    if "one-shot" in parts:
        both = [*footage, *multi_sequences(options.data, options.frames)]
        content["one-shot"] = {
            s.name: {name: one_shot(s, models[name], options.every) for name in dict.fromkeys(("untrained", last))}
            for s in both
        }
    if options.ablations:
        content["ablations"] = ablation_rows(options, footage)
    return content


def ablation_rows(options: argparse.Namespace, footage: list[Sequence]) -> dict[str, Any]:
    """Mean J and F of every variant of the training at the same number of steps, and its figures on held-out clips."""
    train_missing(options.ablations, options.clips, options.cache, options.steps)
    rows = {}
    for name, folder in variants(options.ablations).items():
        model = {"model": load_model(folder / "model.pt")}
        each = {s.name: object_level(s, model, options.every, False) for s in footage}
        found: dict[str, Any] = {key.removeprefix("model, "): value for key, value in mean_rows(each).items()}
        rows[name] = found | held_out(folder)
    return rows


def show(content: dict[str, Any], console: Console) -> None:
    """Print every part's table."""
    if "objects" in content:
        table = Table("map", "J", "F", title="object level, means over sequences", title_justify="left")
        for name, row in content["objects"]["mean"].items():
            table.add_row(name, f"{row['J']:.3f}", f"{row['F']:.3f}")
        console.print(table)
    if "instances" in content:
        _by_sequence(content["instances"], f"instance level, {content['model']}, memory of 8", console)
    if "one-shot" in content:
        rows = {
            sequence: {f"{name} {key}": value for name, row in found.items() for key, value in row.items()}
            for sequence, found in content["one-shot"].items()
        }
        _by_sequence(rows, "one-shot: the first frame's labels handed on", console)
    if "ablations" in content:
        title = "ablations, means over sequences, equal numbers of steps"
        held = [f"held {name}" for name in HELD]
        table = Table("variant", *held, *(f"{name} {key}" for name in READ_OUTS for key in "JF"), title=title)
        for name, row in content["ablations"].items():
            clips = [f"{row[key]:.3f}" if key in row else "" for key in held]
            table.add_row(name, *clips, *(f"{row[read_out][key]:.3f}" for read_out in READ_OUTS for key in "JF"))
        console.print(table)


def _by_sequence(rows: dict[str, Row], title: str, console: Console) -> None:
    measures = list(next(iter(rows.values())))
    table = Table("sequence", *measures, title=title, title_justify="left")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.3f}" for key in measures))
    table.add_row("mean", *(f"{np.mean([row[key] for row in rows.values()]):.3f}" for key in measures))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="--out of the training run")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}; empty for none")
    parser.add_argument("--every", type=at_least(1), default=1, metavar="N", help="score every N-th frame only")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every sequence only")
    parser.add_argument("--ablations", type=Path, metavar="DIR", help="runs of the variants; made where missing")
    parser.add_argument("--clips", type=Path, help="folder of videos the variants learn from")
    parser.add_argument("--cache", type=Path, help="decoded clips of a run, to save time")
    parser.add_argument("--steps", type=at_least(3), default=100, help="of every variant")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and write the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        content = measure(options)
        show(content, Console(width=140))
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
