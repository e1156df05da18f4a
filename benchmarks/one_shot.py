"""One-shot mode: overlap with objects pointed at once, in the first frame, streaming and causal.

    python -m benchmarks.one_shot [--data DATA] [--json FILE] [--seeds 200,201,202,203] [--frames 150]

DATA holds davis_dev/ or is a folder in the DAVIS layout: the first annotation is the prompt; the first and the last
frame are not scored. In the built-in scene every object large enough in frame 5 is prompted, all at once; frames
that do not show an object count apart: there it must be reported absent. Scored are final masks of the pinned id,
against the prompt moved along the flow alone, and the network's proposal that overlaps best with the one before.
Seeds below 200 were for tuning.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import Sequence, sequences
from benchmarks.tracking import demo_frames
from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.frame import Frame
from engine.perceive.network import Network, resolve_model
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from streaming.sinks.masks import id_map

TUNING_SEEDS_END = 200
KINDS = ("engine", "flow alone", "best proposal")
_SMALLEST_PROMPT = 0.005
_SMALLEST_SCORED = 0.0005
"""Fractions of the image: smaller objects are not prompted, and smaller visible parts not scored."""


class Baselines:
    """What a simpler tracker would do with the same percepts; labels are float32 [h, w] on the working grid."""

    def __init__(self, labels: np.ndarray) -> None:
        self._moved = labels
        self._chosen = labels > 0.5

    def step(self, percepts: Percepts) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the prompt moved along the flow, and of the best proposal; the latter empty without overlap."""
        if percepts.flow is not None:
            h, w = percepts.flow.shape[1:]
            position = np.mgrid[0:h, 0:w][::-1].astype(np.float32) + percepts.flow
            self._moved = cv2.remap(self._moved, position[0], position[1], cv2.INTER_LINEAR)
        inter = (percepts.masks & self._chosen).sum(axis=(1, 2))
        union = (percepts.masks | self._chosen).sum(axis=(1, 2))
        if not inter.any():
            return self._moved, np.zeros_like(self._moved)
        best = int((inter / np.maximum(union, 1)).argmax())
        self._chosen = percepts.masks[best]
        soft = 1.0 / (1.0 + np.exp(-np.clip(percepts.logits[best], -30.0, 30.0)))
        return self._moved, soft.astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool [H, W]; 1 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def score_video(frames: Iterable[tuple[Frame, np.ndarray]], pipeline: Pipeline, prompted_at: int) -> dict[str, Any]:
    """Scores of every object prompted in one video.

    Args:
        frames: frames with their truth, integer [H, W], 0 is background.
        pipeline: fresh.
        prompted_at: position of the frame whose truth is the prompt.

    Returns:
        Per object (as text): {"frames": scored, kind: mean overlap, "absent": frames that do not show it,
        "reported absent": how many of them the engine reports so, "ms": median of what all prompts took per frame,
        divided by their number}; the last frame is not scored.
    """
    truths: list[np.ndarray] = []
    maps: list[np.ndarray] = []
    ids: dict[int, int] = {}
    simple: dict[int, Baselines] = {}
    rows: dict[int, dict[str, list[float]]] = {}
    took_ms: list[float] = []
    for position, (frame, truth) in enumerate(frames):
        percepts = pipeline.perceive(frame)
        maps += [id_map(scene) for scene in pipeline.decide(frame, percepts) if scene.kind == "final"]
        truths.append(truth)
        if ids:
            took_ms.append(pipeline.timing_ms["prompts"] / len(ids))
        for thing, baselines in simple.items():
            for kind, labels in zip(KINDS[1:], baselines.step(percepts), strict=True):
                mask = cv2.resize(labels, truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
                rows[thing][kind].append(overlap(mask, truth == thing))
        if position == prompted_at:
            for thing in prompted_objects(truth)[: pipeline.prompts.room]:
                ids[thing] = pipeline.track(mask=truth == thing)
                shape = percepts.background.shape[::-1]
                soft = cv2.resize((truth == thing).astype(np.float32), shape, interpolation=cv2.INTER_AREA)
                simple[thing], rows[thing] = Baselines(soft), {kind: [] for kind in KINDS}
    maps += [id_map(scene) for scene in pipeline.flush() if scene.kind == "final"]
    result = {}
    for thing, row in rows.items():
        shown = [truth == thing for truth in truths[prompted_at + 1 :]]
        found = [labels == ids[thing] for labels in maps[prompted_at + 1 :]]
        row["engine"] = [overlap(a, b) for a, b in zip(found, shown, strict=True)]
        scored = [i for i, mask in enumerate(shown[:-1]) if mask.mean() >= _SMALLEST_SCORED]
        gone = [i for i, mask in enumerate(shown[:-1]) if not mask.any()]
        result[str(thing)] = {
            "frames": len(scored),
            **{kind: statistics.fmean(row[kind][i] for i in scored) if scored else 0.0 for kind in KINDS},
            "absent": len(gone),
            "reported absent": sum(not found[i].any() for i in gone),
            "ms": statistics.median(took_ms),
        }
    return result


def prompted_objects(truth: np.ndarray) -> list[int]:
    """Objects large enough to be pointed at, largest first."""
    values, counts = np.unique(truth[truth > 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [int(values[i]) for i in order if counts[i] >= _SMALLEST_PROMPT * truth.size]


def merged_frames(sequence: Sequence) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames of a sequence with everything annotated as one object."""
    for index in range(len(sequence.frames)):
        truth = (sequence.truth(index) > 0).astype(np.uint8)
        yield Frame(sequence.image(index), index, time.time_ns(), sequence.name), truth


def summarise(videos: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean overlap and time over objects, and the frames without them."""
    rows = [row for video in videos.values() for row in video.values()]
    return {
        **{kind: statistics.fmean(row[kind] for row in rows) if rows else 0.0 for kind in (*KINDS, "ms")},
        **{key: sum(row[key] for row in rows) for key in ("frames", "absent", "reported absent")},
    }


def show(title: str, videos: dict[str, dict[str, Any]]) -> None:
    """Print one row per object, and the mean."""
    table = Table(title=title)
    for column in ("video", "object", "frames", *KINDS, "reported absent", "ms"):
        table.add_column(column, justify="left" if column in ("video", "object") else "right")
    lines = [(name, thing, row) for name, video in videos.items() for thing, row in video.items()]
    for name, thing, row in [*lines, ("mean", "", summarise(videos))]:
        figures = [f"{row[kind]:.3f}" for kind in KINDS]
        gone = f"{row['reported absent']} of {row['absent']}"
        table.add_row(name, thing, str(row["frames"]), *figures, gone, f"{row['ms']:.1f}")
    Console(width=120).print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--seeds", default="200,201,202,203", help="of the built-in scene; empty for none")
    parser.add_argument("--frames", type=int, default=150, help="of the built-in scene, and at most per sequence")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        settings = dict(item.split("=", 1) for item in options.set)
        config = configuration.apply(EngineConfig(), settings)
        network = Network(resolve_model(options.model), threads=config.perceive.threads)
        seeds = [int(seed) for seed in options.seeds.split(",") if seed]
        groups: dict[str, dict[str, dict[str, Any]]] = {}
        if seeds:
            groups["built-in scene"] = {
                f"seed {seed}": score_video(demo_frames(seed, options.frames), Pipeline(config, network), 5)
                for seed in seeds
            }
        if options.data:
            folder = options.data / "davis_dev" if (options.data / "davis_dev").is_dir() else options.data
            groups[folder.name] = {
                sequence.name: score_video(
                    itertools.islice(merged_frames(sequence), options.frames), Pipeline(config, network), 0
                )
                for sequence in sequences(folder)
            }
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    content: dict[str, Any] = {
        "model": {"name": network.name, "hash": network.hash},
        "config": configuration.flatten(config),
    }
    for name, videos in groups.items():
        show(f"{name}, model {network.name} {network.hash}", videos)
        content[name] = {"summary": summarise(videos), "videos": videos}
    if any(seed < TUNING_SEEDS_END for seed in seeds):
        print(f"note: seeds below {TUNING_SEEDS_END} were used for tuning")
    return machine.finish(options.json, content)


if __name__ == "__main__":
    sys.exit(main())
