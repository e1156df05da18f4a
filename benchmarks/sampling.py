"""What the selection store keeps against random frames, at equal budget.

    python -m benchmarks.sampling --json FILE [--seeds 300,301] [--frames 150] [--draws 200]

The engine runs over built-in scenes, whose masks are known, and records into a store. Of what is kept at a budget
of so many frames (under a quota: the most useful of the recorded ones) every label is compared with the truth:

    correct     share of labels that overlap an object of the truth with an intersection over union of 0.5
    complete    share of the truth's objects in the kept frames that are labelled so
    objects     different objects labelled correctly at least once
    taught      correct labels per kept frame of objects that the detector itself missed there: no candidate
                scored 0.5 or more covers them; these are what training can learn from

Random frames are drawn `--draws` times, from all final frames and from the certified ones: mean and standard
deviation. `interval` keeps every n-th certified frame. `gain` is the ratio to the random mean of all frames, `z`
its distance in standard deviations of the draws.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import at_least, engine_config, seed_list
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.perceive.network import Network, resolve_model
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from engine.scene import Scene
from learning.store import SelectionStore
from streaming.sources import open_source
from streaming.store.writer import StoreWriter

BUDGETS = (0.05, 0.1, 0.2)
"""Shares of all frames that are kept; the recorder's interval allows no more than the last."""

METRICS = ("correct", "complete", "objects", "taught")

_STEP = 2
_MATCH = 0.5
_DETECTED = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What one final frame would bring if it were kept.

    Attributes:
        key: (source, frame index).
        certified: whether the store would consider it.
        labels: selections in it.
        present: objects of the truth in it.
        found: those labelled correctly.
        missed: those the detector itself does not find.
    """

    key: tuple[str, int]
    certified: bool
    labels: int
    present: frozenset[tuple[str, int]]
    found: frozenset[tuple[str, int]]
    missed: frozenset[tuple[str, int]]


def overlaps(labels: np.ndarray, truth: np.ndarray) -> dict[tuple[int, int], float]:
    """Intersection over union of every pair (label, true id) that shares a pixel; 0 is nothing."""
    base = int(truth.max()) + 1
    pairs, counts = np.unique(labels.astype(np.int64) * base + truth, return_counts=True)
    area, area_true = np.bincount(labels.ravel()), np.bincount(truth.ravel())
    out = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        value, identity = divmod(pair, base)
        if value and identity:
            out[value, identity] = count / (area[value] + area_true[identity] - count)
    return out


def detected(percepts: Percepts, truth: np.ndarray) -> set[int]:
    """True ids that a candidate scored 0.5 or more covers, compared on the working grid."""
    h, w = percepts.background.shape
    rows = (np.arange(h) * 2 + 1) * truth.shape[0] // (2 * h)
    columns = (np.arange(w) * 2 + 1) * truth.shape[1] // (2 * w)
    small = truth[np.ix_(rows, columns)]
    masks = percepts.masks[percepts.scores >= _DETECTED]
    out = set()
    for identity in np.unique(small[small > 0]).tolist():
        inside = small == identity
        shared, union = (masks & inside).sum(axis=(1, 2)), (masks | inside).sum(axis=(1, 2))
        if (shared >= _MATCH * union).any():
            out.add(identity)
    return out


def judge(scene: Scene, truth: np.ndarray, alone: set[int], max_loss_bound: float) -> Seen:
    """What a final scene says about the truth of its frame."""
    small = truth[::_STEP, ::_STEP]
    good = {
        identity for (_, identity), value in overlaps(scene.labels[::_STEP, ::_STEP], small).items() if value >= _MATCH
    }
    present = set(np.unique(small[small > 0]).tolist())
    commit = scene.commit
    assert commit is not None

    def named(ids: set[int]) -> frozenset[tuple[str, int]]:
        return frozenset((scene.source, identity) for identity in ids)

    return Seen(
        (scene.source, scene.frame_index),
        (commit.exact or commit.loss_bound <= max_loss_bound) and bool(scene.objects),
        len(scene.objects),
        named(present),
        named(good),
        named(present - alone),
    )


def watch(seeds: Sequence[int], frames: int, config: EngineConfig, network: Network, store: Path) -> list[Seen]:
    """Run the engine over the scenes and record them; returns every final frame, judged."""
    recorder = Recorder(StoreWriter(store), config.record)
    seen: list[Seen] = []
    for seed in seeds:
        pipeline = Pipeline(config, network)
        truths: dict[int, np.ndarray] = {}
        alone: dict[int, set[int]] = {}

        def take(
            scenes: list[Scene], truths: dict[int, np.ndarray] = truths, alone: dict[int, set[int]] = alone
        ) -> None:
            for scene in scenes:
                if scene.kind == "final":
                    truth, found = truths.pop(scene.frame_index), alone.pop(scene.frame_index)
                    seen.append(judge(scene, truth, found, config.record.max_loss_bound))

        for frame in open_source(f"demo://?seed={seed}&frames={frames}"):
            frame = dataclasses.replace(frame, source=f"scene {seed}")
            assert frame.truth is not None
            percepts = pipeline.perceive(frame)
            truths[frame.index], alone[frame.index] = frame.truth, detected(percepts, frame.truth)
            scenes = pipeline.decide(frame, percepts)
            recorder.step(frame, scenes)
            take(scenes)
        last = pipeline.flush()
        recorder.step(None, last)
        take(last)
    recorder.close()
    return seen


def most_useful(store: Path) -> list[tuple[str, int]]:
    """Keys of the stored frames, the ones that would leave last first."""
    with SelectionStore(store) as reader:
        frames = sorted(reader.frames(), key=lambda frame: (-frame.usefulness, -frame.id))
        return [(frame.source, frame.number) for frame in frames]


def measure(kept: Sequence[Seen]) -> dict[str, float]:
    """The metrics of a set of kept frames."""
    labels = sum(item.labels for item in kept)
    found = sum(len(item.found) for item in kept)
    return {
        "correct": found / labels if labels else 0.0,
        "complete": found / max(1, sum(len(item.present) for item in kept)),
        "objects": float(len(frozenset().union(*(item.found for item in kept)))),
        "taught": sum(len(item.found & item.missed) for item in kept) / max(1, len(kept)),
    }


def compare(seen: Sequence[Seen], ranked: Sequence[tuple[str, int]], draws: int, seed: int = 0) -> dict[str, Any]:
    """Figures of every policy at every budget.

    Args:
        seen: all final frames.
        ranked: keys of the store's frames, the most useful first.
        draws: random sets per budget.
    """
    rng = np.random.default_rng(seed)
    by_key = {item.key: item for item in seen}
    certified = [item for item in seen if item.certified]
    result = {}
    for share in BUDGETS:
        count = min(max(1, round(share * len(seen))), len(ranked), len(certified))
        row: dict[str, Any] = {"frames": count, "store": measure([by_key[key] for key in ranked[:count]])}
        row["interval"] = measure([certified[i] for i in np.linspace(0, len(certified) - 1, count).round().astype(int)])
        for name, pool in (("random", seen), ("random certified", certified)):
            sets = [measure([pool[i] for i in rng.choice(len(pool), count, replace=False)]) for _ in range(draws)]
            row[name] = {key: float(np.mean([one[key] for one in sets])) for key in METRICS}
            row[f"{name} spread"] = {key: float(np.std([one[key] for one in sets])) for key in METRICS}
        row["gain"] = {key: row["store"][key] / max(row["random"][key], 1e-9) for key in METRICS}
        row["z"] = {
            key: (row["store"][key] - row["random"][key]) / max(row["random spread"][key], 1e-9) for key in METRICS
        }
        result[f"{share:.0%}"] = row
    return result


def show(result: dict[str, Any]) -> None:
    """Print one row per budget and policy."""
    table = Table(title="what is kept, at equal budget")
    for column in ("budget", "frames", "policy", *METRICS):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for budget, row in result.items():
        for policy in ("store", "interval", "random certified", "random"):
            spread = row.get(f"{policy} spread")
            figures = [f"{row[policy][key]:.3f}" + (f" ± {spread[key]:.3f}" if spread else "") for key in METRICS]
            table.add_row(budget, str(row["frames"]), policy, *figures)
    Console(width=120).print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--seeds", type=seed_list, default="300,301,302,303,304,305", help="of the built-in scene")
    parser.add_argument("--frames", type=at_least(20), default=150, help="of each scene")
    parser.add_argument("--draws", type=at_least(2), default=200, help="random sets per budget")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        config = engine_config(options.set)
        network = Network(resolve_model(options.model), threads=config.perceive.threads)
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "sampling.store"
            seen = watch(options.seeds, options.frames, config, network, store)
            ranked = most_useful(store)
        result = compare(seen, ranked, options.draws)
        show(result)
        content = {
            "model": {"name": network.name, "hash": network.hash},
            "seeds": options.seeds,
            "finals": len(seen),
            "certified": sum(item.certified for item in seen),
            "recorded": len(ranked),
            "budgets": result,
        }
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
