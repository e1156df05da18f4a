"""What the seeds learn while a video runs: final masks against how often they learn and what they may teach.

    python -m benchmarks.adaptation --data DATA [--json FILE] [--parts k,coupled,couplings] [--model FILE] [--frames N]
        [--only NAMES]
    python -m benchmarks.adaptation --demo [--json FILE] [--seeds 200,201,202,203] [--frames 90]

k: memories refreshed every so many frames and only listened to; coupled: the same while they correct the background
map that the next selection sees; couplings: each switch off in turn. DATA holds davis_dev/ or is a folder in the DAVIS
layout itself; --demo takes the built-in scene with its exact truth. Every frame is perceived once: seeds, selection and
identities of each variant then run on the same percepts. First and last frame of a video are shown and not scored.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
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
from benchmarks.davis import Sequence, sequences
from benchmarks.measures import InstanceScore, SequenceScore, iou
from benchmarks.options import at_least, engine_config, seed_list
from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network, resolve_model
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.scene import Scene
from engine.seeds.stage import SeedFrame, Seeds
from streaming.sinks.masks import foreground_map, id_map
from streaming.sources import open_source

PAPER_J = {"1": 77.5, "5": 76.4, "10": 75.9, "20": 75.0, "40": 73.6, "never": 70.5}
"""Mean J in per cent on DAVIS train by frames between refreshes, as the Seeds paper reports it for P_FG."""

_SWITCHES = ("learn_memory", "correct_background", "grow", "propagate", "guard")
_ALL_ON: dict[str, Any] = {f"seeds.{name}": True for name in _SWITCHES}
COUPLINGS: dict[str, dict[str, Any]] = {
    "all on": _ALL_ON,
    **{f"{name} off": {**_ALL_ON, f"seeds.{name}": False} for name in _SWITCHES},
    "default": {},
    "all off": {"seeds.enabled": False},
}
"""Settings of each row of part couplings."""

_FOREVER = 1_000_000
COUPLED = {
    name: {
        **_ALL_ON,
        "seeds.refresh_frames": 0 if name == "never" else int(name),
        # Seeds in every frame, or k would count looks instead; and nothing learned may expire, or the rows that
        # seldom learn would not be scored where they are worst.
        "seeds.look_frames": 1,
        "seeds.active_frames": _FOREVER,
    }
    for name in PAPER_J
}
"""Settings of each row of part coupled, all couplings on; refresh 0 learns from the first final frame only."""

REFRESHES = {name: {**settings, "seeds.correct_background": False} for name, settings in COUPLED.items()}
"""Settings of each row of part k: the paper's experiment, in which nothing that P_FG says chooses what is learned."""

PARTS = {"k": REFRESHES, "coupled": COUPLED, "couplings": COUPLINGS}
MEASURES = ("J_fg", "J_best_id", "J_P_FG", "J_map", "J_network", "P_FG_frames")
_DEMO_FRAMES = 90


@dataclass(frozen=True)
class Shot:
    """One annotated video in memory.

    Attributes:
        name: of the video.
        frames: every frame.
        truths: integer [H, W] per frame, ids of the annotated objects, 0 is background.
    """

    name: str
    frames: list[Frame]
    truths: list[np.ndarray]


class ObservedSeeds(Seeds):
    """The seeds, keeping what they said of the latest frame."""

    latest: SeedFrame

    def step(self, percepts: Percepts, frame_index: int, image: np.ndarray | None = None) -> SeedFrame:
        """Advise on a frame and remember the advice."""
        self.latest = super().step(percepts, frame_index, image)
        return self.latest


class ShotScore:
    """J of a video: of the engine's output, and of what the seeds believe before the selection.

    J_fg: mean overlap of the foreground output with the merged annotation. J_best_id: per annotated object the
    mean overlap of the one published id that fits it best over the whole video, then the mean over objects.
    The other maps are cut at one half, over the frames that have P_FG; P_FG_frames is their share, and seeds that
    are off have none. J_P_FG: foreground by the memories alone. J_map: 1 - background map, corrected by the
    memories, as the selection gets it. J_network: the same map as the network left it.

    Args:
        shot: the video.
    """

    def __init__(self, shot: Shot) -> None:
        self._shot = shot
        self._foreground = SequenceScore()
        self._instances = InstanceScore()
        self._beliefs: dict[str, list[float]] = {"J_P_FG": [], "J_map": [], "J_network": []}
        self.scored = range(1, len(shot.frames) - 1)

    def advised(self, index: int, seeds: SeedFrame, background: np.ndarray) -> None:
        """What the seeds said of a frame before its selection, and what float32 [h, w] the network had said."""
        if index not in self.scored or seeds.foreground is None:
            return
        truth = self._shot.truths[index]
        maps = (seeds.foreground, 1.0 - seeds.percepts.background, 1.0 - background)
        for values, seen in zip(self._beliefs.values(), maps, strict=True):
            belief = cv2.resize(seen, truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
            values.append(iou(truth > 0, belief))

    def decided(self, scene: Scene) -> None:
        """A scene; only final ones count."""
        if scene.kind != "final" or scene.frame_index not in self.scored:
            return
        truth, ids = self._shot.truths[scene.frame_index], id_map(scene)
        everywhere = np.ones(truth.shape, bool)  # spares the boundary measure, which nobody asks for here
        self._foreground.add(scene.frame_index, truth > 0, foreground_map(scene) > 0, ids, everywhere)
        self._instances.add(truth, np.empty((0, *truth.shape), bool), ids)

    def figures(self) -> dict[str, Any]:
        """Frames scored and every measure; those of maps are None when no frame had P_FG."""
        return {
            "frames": len(self._foreground.frames),
            "J_fg": round(self._foreground.j_fg, 4),
            "J_best_id": round(self._instances.means()["best_id"], 4),
            **{name: round(float(np.mean(js)), 4) if js else None for name, js in self._beliefs.items()},
            "P_FG_frames": round(len(self._beliefs["J_P_FG"]) / max(1, len(self.scored)), 4),
        }


def perceive(shot: Shot, config: EngineConfig, network: Network) -> list[Percepts]:
    """Percepts of every frame as the seeds get them; no setting of the seeds changes them."""
    pipeline = Pipeline(config, network)
    return [pipeline.perceive(frame) for frame in shot.frames]


def replay(shot: Shot, percepts: list[Percepts], config: EngineConfig, network: Network) -> dict[str, Any]:
    """Figures of one variant on a video already perceived."""
    pipeline = Pipeline(config, network)
    pipeline.seeds = seeds = ObservedSeeds(config.seeds)
    score = ShotScore(shot)
    for frame, seen in zip(shot.frames, percepts, strict=True):
        scenes = pipeline.decide(frame, seen)
        score.advised(frame.index, seeds.latest, seen.background)
        for scene in scenes:
            score.decided(scene)
    for scene in pipeline.flush():
        score.decided(scene)
    return score.figures()


def annotated_shot(sequence: Sequence) -> Shot:
    """A sequence with its merged annotation as one object.

    Raises:
        SourceError: a file that is not a readable image.
    """
    indices = range(len(sequence.frames))
    frames = [Frame(sequence.image(index), index, time.time_ns(), sequence.name) for index in indices]
    return Shot(sequence.name, frames, [(sequence.truth(index) > 0).astype(np.uint8) for index in indices])


def demo_shot(seed: int, count: int, size: str) -> Shot:
    """The built-in scene; its truth tells objects apart."""
    with open_source(f"demo://?seed={seed}&frames={count}&size={size}") as source:
        frames = list(source)
    return Shot(f"demo {seed}", frames, [frame.truth for frame in frames if frame.truth is not None])


def shots(options: argparse.Namespace) -> Iterator[Shot]:
    """The videos to run, one in memory at a time.

    Raises:
        SourceError: no annotated sequences in DATA.
        UsageError: --only names none of them, or --seeds none.
    """
    if options.demo:
        if not options.seeds:
            raise UsageError("--seeds is empty: give at least one")
        for seed in options.seeds:
            yield demo_shot(seed, options.frames or _DEMO_FRAMES, options.size)
        return
    folder = options.data / "davis_dev" if (options.data / "davis_dev").is_dir() else options.data
    if not (folder / "JPEGImages").is_dir():
        raise SourceError(f"{options.data}: holds no davis_dev/ and is not in the DAVIS layout")
    only = options.only.split(",") if options.only else None
    found = [sequence for sequence in sequences(folder) if only is None or sequence.name in only]
    if not found:
        raise UsageError(f"--only {options.only}: no sequence of that name in {folder}")
    for sequence in track(found, "sequences", console=Console(stderr=True), transient=True):
        yield annotated_shot(sequence.first(options.frames))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every variant asked for on every video, as the report's content."""
    base = engine_config(options.set)
    network = Network(resolve_model(options.model), threads=base.perceive.threads)
    # What is configured alike runs once.
    rows = {
        part: {name: configuration.apply(base, PARTS[part][name]) for name in PARTS[part]} for part in options.parts
    }
    variants = list(dict.fromkeys(config for part in rows.values() for config in part.values()))
    figures: dict[EngineConfig, dict[str, Any]] = {config: {} for config in variants}
    for shot in shots(options):
        percepts = perceive(shot, base, network)
        for config in variants:
            figures[config][shot.name] = replay(shot, percepts, config, network)
    return {
        "footage": "demo" if options.demo else "davis_dev",
        "model": {"name": network.name, "hash": network.hash},
        "config": configuration.flatten(base),
        "paper_J": PAPER_J,
        **{
            part: {
                name: {"mean": means(figures[config]), "sequences": figures[config]} for name, config in items.items()
            }
            for part, items in rows.items()
        },
    }


def means(sequences: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """Mean over videos of every measure; None where no video has it."""
    out: dict[str, float | None] = {}
    for measure in MEASURES:
        values = [row[measure] for row in sequences.values() if row[measure] is not None]
        out[measure] = round(float(np.mean(values)), 4) if values else None
    return out


def show(content: dict[str, Any], console: Console) -> None:
    """Print a table per part."""
    model = f"{content['footage']}, model {content['model']['name']} {content['model']['hash']}"
    titles = {
        "k": "frames between lessons, memories listened to only",
        "coupled": "frames between lessons, all couplings on",
        "couplings": "couplings of seeds and selection",
    }
    for part in (part for part in PARTS if part in content):
        table = Table(title=f"{titles[part]}: {model}", title_justify="left")
        names = (part, *MEASURES) if part == "couplings" else (part, *MEASURES, "paper's J")
        for index, name in enumerate(names):
            table.add_column(name, justify="right" if index else "left", no_wrap=True)
        for name, row in content[part].items():
            cells = ["none" if row["mean"][key] is None else f"{row['mean'][key]:.3f}" for key in MEASURES]
            table.add_row(name, *cells, *([] if part == "couplings" else [f"{PAPER_J[name] / 100:.3f}"]))
        console.print(table)


def _parts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name}: unknown{configuration.nearest(name, PARTS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    footage = parser.add_mutually_exclusive_group(required=True)
    footage.add_argument("--data", type=Path)
    footage.add_argument("--demo", action="store_true")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)}; default: all")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as the engine")
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every video only")
    parser.add_argument("--seeds", type=seed_list, default=[200, 201, 202, 203])
    parser.add_argument("--size", default="480x854", metavar="HxW", help="of the built-in scene")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the JSON; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        content = measure(options)
        show(content, Console(width=120))
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
