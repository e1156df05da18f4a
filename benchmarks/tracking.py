"""Identities of the whole engine, streaming and causal: HOTA, IDF1, id switches, re-entries.

    python -m benchmarks.tracking --json FILE [--data DATA] [--seeds 210,211] [--frames 600]

Scored are final scenes, against plain linking: the same masks, ids by overlap with the previous frame alone.
The built-in scene has exact truth, occlusions, exits and re-entries; at 600 frames everything leaves and
returns twice, some fifty returns in the eight scenes of the default. DATA holds davis_multi/ (or is such a folder
itself); without it only the scene runs. Masks of things nobody annotated count as false there, for both kinds of
ids alike. Seeds below 200 were for tuning; 200 to 205 were scored before.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import Sequence, sequences
from benchmarks.options import at_least, engine_config, seed_list
from benchmarks.tracking_metrics import Reentries, TrackingScore, compare, plain_linking
from engine import config as configuration
from engine.errors import EngineError
from engine.frame import Frame
from engine.perceive.network import Network, resolve_model
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.sinks.masks import id_map
from streaming.sources import open_source

TUNING_SEEDS_END = 200
KINDS = ("engine", "plain linking")


def score_video(frames: Iterable[tuple[Frame, np.ndarray]], pipeline: Pipeline, every: int = 1) -> dict[str, Any]:
    """Scores of one video with its instance masks.

    Args:
        frames: frames with their truth, integer [H, W].
        pipeline: fresh.
        every: compare on every so many pixels of each axis.

    Returns:
        {"frames", "engine": scores, "plain linking": scores}; scores hold the metrics and "reentries".
    """
    truths: list[np.ndarray] = []
    maps: list[np.ndarray] = []

    def take(scenes: list[Scene]) -> None:
        maps.extend(id_map(scene)[::every, ::every] for scene in scenes if scene.kind == "final")

    for frame, truth in frames:
        truths.append(truth[::every, ::every])
        take(pipeline.step(frame))
    take(pipeline.flush())
    result: dict[str, Any] = {"frames": len(maps)}
    for kind, linked in zip(KINDS, (maps, plain_linking(maps)), strict=True):
        score = TrackingScore()
        for truth, ids in zip(truths, linked, strict=True):
            score.add(compare(truth, ids))
        result[kind] = {**score.summary(), "reentries": score.reentries()}
    return result


def demo_frames(seed: int, count: int) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames of the built-in scene with its truth."""
    for frame in open_source(f"demo://?seed={seed}&frames={count}"):
        assert frame.truth is not None
        yield frame, frame.truth


def annotated_frames(sequence: Sequence) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames of a sequence with its instances; colours of the annotation tell them apart.

    Raises:
        SourceError: a file that is not a readable image.
    """
    for index in range(len(sequence.frames)):
        yield Frame(sequence.image(index), index, time.time_ns(), sequence.name), sequence.truth(index)


def summarise(videos: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean of each metric over videos, sum of the re-entries, and their rate."""
    out: dict[str, Any] = {}
    for kind in KINDS:
        rows = [video[kind] for video in videos.values()]
        total = sum((row["reentries"] for row in rows), Reentries())
        out[kind] = {key: statistics.fmean(row[key] for row in rows) for key in rows[0] if key != "reentries"}
        out[kind]["reentries"] = total
    return out


def as_json(value: Any) -> Any:
    """Nested results with rounded numbers and counted re-entries."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, Reentries):
        counts = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {**counts, "rate": round(value.rate, 4) if value.kept + value.changed else None}
    return round(value, 4) if isinstance(value, float) else value


def show(title: str, videos: dict[str, dict[str, Any]]) -> None:
    """Print one row per video and kind of ids, and their mean."""
    table = Table(title=title)
    for column in ("video", "ids", "HOTA", "DetA", "AssA", "IDF1", "switches", "re-entries kept"):
        table.add_column(column, justify="left" if column in ("video", "ids") else "right")
    rows = {**videos, "mean": summarise(videos)} if len(videos) > 1 else videos
    for name, video in rows.items():
        for kind in KINDS:
            row, back = video[kind], video[kind]["reentries"]
            figures = [f"{row[key]:.3f}" for key in ("HOTA", "DetA", "AssA", "IDF1")]
            found = f"{back.kept} of {back.kept + back.changed}, {back.uncovered} without a mask"
            table.add_row(name, kind, *figures, f"{row['switches']:g}", found)
    Console(width=120).print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model")
    parser.add_argument(
        "--seeds",
        type=seed_list,
        default="210,211,212,213,214,215,216,217",
        help="of the built-in scene; empty for none",
    )
    parser.add_argument("--frames", type=at_least(1), default=600, help="of each seed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        config = engine_config(options.set)
        network = Network(resolve_model(options.model), threads=config.perceive.threads)
        content: dict[str, Any] = {
            "model": {"name": network.name, "hash": network.hash},
            "config": configuration.flatten(config),
        }
        groups = {}
        if options.seeds:
            groups["built-in scene"] = {
                f"seed {seed}": score_video(demo_frames(seed, options.frames), Pipeline(config, network), every=2)
                for seed in options.seeds
            }
        if options.data:
            folder = options.data / "davis_multi" if (options.data / "davis_multi").is_dir() else options.data
            groups[folder.name] = {
                sequence.name: score_video(annotated_frames(sequence), Pipeline(config, network))
                for sequence in sequences(folder, resolution="")
            }
        for name, videos in groups.items():
            show(f"{name}, model {network.name} {network.hash}", videos)
            content[name] = as_json({"summary": summarise(videos), "videos": videos})
        if any(seed < TUNING_SEEDS_END for seed in options.seeds):
            print(f"note: seeds below {TUNING_SEEDS_END} were used for tuning")
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
