"""What the detector's scores add to the selection of single frames: the figures behind `select.lambda_score`.

    python -m benchmarks.score_prior --shards DIR [--json FILE] [--weights 0,1,2,4] [--samples N] [--model FILE]

DIR holds held_*.shard, rendered by python -m learning.synthesis: pictures training does not draw. Every sample is a
video of one frame, so that nothing but background map and scores decides.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine
from benchmarks.footage import enlarged
from benchmarks.measures import iou, pairwise_iou
from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError, UsageError
from engine.perceive.network import Network, resolve_model
from engine.percepts import Percepts
from engine.propose.candidates import propose
from engine.select.selection import Selection
from learning.synthesis.sample import Kind, Origin
from learning.synthesis.shards import Shards

WEIGHTS = (0.0, 1.0, 2.0, 4.0)

NOTHING_IOU = 0.1
"""A selected mask that overlaps no annotated thing better than this covers nothing."""

LABELLED = (Origin.COMPOSITE, Origin.PILE)
"""Samples whose every object has an id: only there a mask on none of them is wrong."""

_MIN_AREA_PX = 32
"""Label pixels below which an instance is too small to be asked for: eight cells of the working grid."""


@dataclass(frozen=True)
class Held:
    """One held-out sample, perceived.

    Attributes:
        percepts: candidates of its only frame.
        objects: bool [T, H, W], instances to be found.
        things: bool [U, H, W], all ids, those that are no object to be found included.
        foreground, counted: bool [H, W], what the foreground output should be and where that is certain.
        labelled: whether every object of the picture has an id.
    """

    percepts: Percepts
    objects: np.ndarray
    things: np.ndarray
    foreground: np.ndarray
    counted: np.ndarray
    labelled: bool


def perceive(image: np.ndarray, motion: np.ndarray | None, network: Network, config: EngineConfig) -> Percepts:
    """Candidates of a sample as the engine would propose them.

    Args:
        image: uint8 [H, W, 3] RGB.
        motion: float32 [5, h, w] stored features, None for a first frame.
    """
    features = None
    if motion is not None:
        size = network.motion_size[::-1]
        features = np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_LINEAR) for channel in motion])
    output = network.run(network.fit(np.ascontiguousarray(image[:, :, ::-1])), features)
    h, w = network.grid
    masks = np.empty((0, h, w), np.float32) if output.masks is None else output.masks
    scores = np.full(len(masks), 0.5, np.float32) if output.scores is None else output.scores
    background = np.full((h, w), 0.5, np.float32) if output.background is None else output.background
    # The only frame of its video is coupled to none: of its flow only counts that there is one.
    flow = None if motion is None else np.zeros((2, h, w), np.float32)
    return propose(Percepts(masks > 0, scores, background, output.embedding, flow, flow, masks), config.propose)


def hold(shards: Shards, index: int, network: Network, config: EngineConfig) -> Held:
    """Sample `index` perceived, with what its ids mean.

    With motion only what moves is foreground and standing objects are left open; without it every object is.
    """
    image, motion, ids, kinds, origin = shards[index]
    present = [int(v) for v in np.unique(ids) if v and kinds[v] != Kind.ABSENT]
    things = np.stack([ids == v for v in present]) if present else np.empty((0, *ids.shape), bool)
    asked = np.array(
        [
            kinds[v] in (Kind.MOVING, Kind.STATIC) and np.count_nonzero(thing) >= _MIN_AREA_PX
            for v, thing in zip(present, things, strict=True)
        ],
        bool,
    )
    kind = kinds[ids]
    labelled = origin in LABELLED
    moving, standing = kind == Kind.MOVING, kind == Kind.STATIC
    counted = (kind != Kind.UNSURE) & ((kind != Kind.DISTRACTOR) | (motion is not None))
    if motion is not None:
        foreground, counted = moving, counted & ~standing
    else:
        foreground = moving | standing
        if not labelled:
            counted &= foreground
    return Held(perceive(image, motion, network, config), things[asked], things, foreground, counted, labelled)


class PriorScore:
    """Figures of one weight over samples.

    best_IoU: mean over instances of the best selected mask. foreground_IoU: mean over the fully labelled samples
    with foreground of the union of the selected masks. nothing: share of the masks selected in fully labelled samples
    whose overlap with every thing there is below `NOTHING_IOU`. masks: selected per sample.
    """

    def __init__(self) -> None:
        self._best: list[float] = []
        self._foreground: list[float] = []
        self._masks: list[int] = []
        self._nothing = self._judged = 0

    def add(self, held: Held, members: tuple[int, ...]) -> None:
        """One sample and the candidates selected in it."""
        size = held.foreground.shape
        chosen = enlarged(held.percepts.logits[list(members)], size)
        self._masks.append(len(members))
        self._best += pairwise_iou(held.objects, chosen).max(axis=1, initial=0.0).tolist()
        if not held.labelled:
            return
        self._nothing += int((pairwise_iou(chosen, held.things).max(axis=1, initial=0.0) < NOTHING_IOU).sum())
        self._judged += len(members)
        if (held.foreground & held.counted).any():
            union = chosen.any(axis=0)
            self._foreground.append(iou(union & held.counted, held.foreground & held.counted))

    def figures(self) -> dict[str, float | int]:
        """Every figure, and over how many instances, samples and masks."""
        return {
            "best_IoU": _mean(self._best),
            "foreground_IoU": _mean(self._foreground),
            "nothing": round(self._nothing / max(1, self._judged), 4),
            "masks": _mean(self._masks),
            "instances": len(self._best),
            "foreground_samples": len(self._foreground),
            "judged_masks": self._judged,
        }


def _mean(values: list[Any]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report's content."""
    shards = Shards(options.shards, "held")
    base = EngineConfig()
    configs = {weight: configuration.apply(base, {"select.lambda_score": weight}) for weight in options.weights}
    network = Network(resolve_model(options.model), threads=base.perceive.threads)
    count = min(len(shards), options.samples or len(shards))
    scores = {weight: PriorScore() for weight in configs}
    # Spread over all shards, which are rendered in order of kind.
    indices = [int(i) for i in np.linspace(0, len(shards) - 1, count).round()]
    for index in track(indices, "samples", console=Console(stderr=True), transient=True):
        held = hold(shards, index, network, base)
        for weight, config in configs.items():
            step = Selection(config.select).step(held.percepts, 0)
            scores[weight].add(held, step.provisional)
    return {
        "samples": count,
        "model": {"name": network.name, "hash": network.hash},
        "default": base.select.lambda_score,
        "lambda_score": {f"{weight:g}": score.figures() for weight, score in scores.items()},
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    model = f"{result['model']['name']} {result['model']['hash']}"
    title = f"single frames, {result['samples']} held-out samples, model {model}; default {result['default']:g}"
    table = Table(title=title, title_justify="left")
    names = ("best_IoU", "foreground_IoU", "nothing", "masks")
    for column in ("lambda_score", *names):
        table.add_column(column, justify="right")
    for weight, row in result["lambda_score"].items():
        table.add_row(weight, *(f"{row[name]:.3f}" for name in names))
    console.print(table)


def _weights(text: str) -> list[float]:
    try:
        return [float(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be numbers separated by commas") from None


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weights", type=_weights, default=list(WEIGHTS))
    parser.add_argument("--samples", type=int, metavar="N", help="N samples, evenly spaced; default: all")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    options = parser.parse_args(arguments)
    try:
        if options.samples is not None and options.samples < 1:
            raise UsageError(f"--samples {options.samples}: must be at least 1")
        result = measure(options)
        show(result, Console(width=110))
        machine.write_report(options.json, result)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
