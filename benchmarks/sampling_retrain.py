"""What the store keeps against random frames, as training data: the same fine-tuning on as many frames of either.

    python -m benchmarks.sampling_retrain --work DIR --data DATA --json FILE [--seeds 0,1,2] [--frames 60] [--draws 2]
        [--visits 240]

DIR is a work folder of `benchmarks.unseen`, whose rendered worlds and base networks are used: per seed, unlabelled
videos of a family of objects the base never saw. The engine runs over them with the base as its model and records, as
`--record` does, into a store. Then so many frames are kept:

    store             the most useful ones, as a full store would
    random            of all final frames; those that are uncertain or empty teach nothing
    random certified  of the final frames with a certificate and at least one label

Without --visits every video is seen once: nothing repeats, and any frame is as new as another. With it the stream is
what a robot sees that works in a few places and comes to others now and then: so many visits, to video k in
proportion to 1 / k, with the camera's noise different each time.

Labels are the engine's own selections, by the rules of `benchmarks.unseen`; so are fine-tuning and scores (AP on
held-out stills of the unseen and of the seen family). Killed and started again, it goes on after the last figure.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
from benchmarks.options import at_least, seed_list
from benchmarks.sampling import most_useful
from benchmarks.unseen.labels import OURS, Watched, believed, doubtful_pixels, moving_pixels, scene_labels
from benchmarks.unseen.plan import SIZE, Plan
from benchmarks.unseen.scores import score
from benchmarks.unseen.training import IGNORED_ID, LabelledFrame, Mixture, read_network, train
from benchmarks.unseen.world import World, read_backgrounds
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from engine.scene import Scene
from streaming.store.writer import StoreWriter

Key = tuple[str, int]
"""Visit and frame."""

_NOISE = 2.0
"""Standard deviation of what the camera adds to a picture seen again, in grey levels."""


@dataclass(frozen=True)
class Mined:
    """What the engine made of the videos of one seed.

    Attributes:
        frames: every final frame with its labels; those without certificate are open everywhere.
        ranked: the recorded frames, the most useful first.
    """

    frames: dict[Key, LabelledFrame]
    ranked: list[Key]

    @property
    def labelled(self) -> list[Key]:
        """Frames with at least one label."""
        return [key for key, frame in self.frames.items() if ((frame.ids > 0) & (frame.ids < IGNORED_ID)).any()]


def itinerary(videos: int, visits: int | None, seed: int) -> list[int]:
    """Numbers of the videos as they are seen: each once, or `visits` of them, video k in proportion to 1 / k."""
    if visits is None:
        return list(range(videos))
    share = 1 / np.arange(1, videos + 1)
    return [int(n) for n in np.random.default_rng([seed, 43]).choice(videos, visits, p=share / share.sum())]


def mine(world: World, plan: Plan, model: Path, store: Path, route: Sequence[int]) -> Mined:
    """Run the engine over the videos of a route, record, and label every final frame."""
    network, config = Network(model, threads=1), EngineConfig()
    recorder = Recorder(StoreWriter(store), config.record)
    frames: dict[Key, LabelledFrame] = {}
    for visit, number in enumerate(route):
        name, images = f"visit {visit}", world.pictures("video", number).images
        if number in route[:visit]:
            noise = np.random.default_rng([visit, 47]).normal(0, _NOISE, images.shape)
            images = np.clip(images + noise, 0, 255).round().astype(np.uint8)
        pipeline = Pipeline(config, network)
        percepts: list[Percepts] = []
        finals: dict[int, Scene] = {}
        for index, image in enumerate(images):
            # A tenth of a second apart, as the videos are drawn.
            frame = Frame(image, index, index * 100_000_000, name)
            percepts.append(pipeline.perceive(frame))
            scenes = pipeline.decide(frame, percepts[-1])
            recorder.step(frame, scenes)
            finals |= {scene.frame_index: scene for scene in scenes if scene.kind == "final"}
        last = pipeline.flush()
        recorder.step(None, last)
        finals |= {scene.frame_index: scene for scene in last}
        watched = [Watched(seen, {OURS: finals[index]}) for index, seen in enumerate(percepts)]
        for index, image in enumerate(images):
            frames[name, index] = LabelledFrame(image, _labels(watched, index, plan.max_loss_bound))
    recorder.close()
    return Mined(frames, most_useful(store))


def _labels(watched: list[Watched], index: int, max_loss_bound: float) -> np.ndarray:
    scene, percepts = watched[index].finals[OURS], watched[index].percepts
    if scene.commit is None or not (scene.commit.exact or scene.commit.loss_bound <= max_loss_bound):
        return np.full(SIZE, IGNORED_ID, np.uint8)
    unclear = doubtful_pixels(percepts) | moving_pixels(percepts)
    return scene_labels(scene, believed(watched, index, OURS), unclear)


def choices(mined: Mined, count: int, draws: int, seed: int) -> dict[str, list[Key]]:
    """Frames of every row: the store's, and `draws` random sets of each kind."""
    rng = np.random.default_rng([seed, 41])
    pools = {"random": list(mined.frames), "random certified": mined.labelled}
    out = {"store": mined.ranked[:count]}
    for number in range(draws):
        for name, pool in pools.items():
            chosen = rng.choice(len(pool), min(count, len(pool)), replace=False)
            out[f"{name} {number}"] = [pool[i] for i in chosen]
    return out


def run_seed(
    folder: Path, out: Path, data: Path, plan: Plan, seed: int, count: int, draws: int, visits: int | None
) -> dict[str, Any]:
    """Figures of every row of one seed.

    Raises:
        SourceError: `benchmarks.unseen` has not made world and base of this seed.
    """
    for needed in ("base.pt", "base.onnx", "world"):
        if not (folder / needed).exists():
            raise SourceError(f"{folder / needed}: not there; make it with python -m benchmarks.unseen --work …")
    out.mkdir(parents=True, exist_ok=True)
    world = World(folder / "world", data, plan, seed)
    case = f"{count}" if visits is None else f"{count}_of_{visits}"
    path = out / f"figures_{case}.json"
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "before" not in rows:
        rows["before"] = _figures(folder / "base.pt", world)
    mined: Mined | None = None
    names = ["store", *(f"{kind} {n}" for n in range(draws) for kind in ("random", "random certified"))]
    for name in names:
        if name in rows:
            continue
        if mined is None:
            for old in out.glob("videos.store*"):
                old.unlink()
            mined = mine(world, plan, folder / "base.onnx", out / "videos.store", itinerary(plan.videos, visits, seed))
        keys = choices(mined, count, draws, seed)[name]
        labelled = set(mined.labelled)
        frames = [mined.frames[key] for key in keys if key in labelled]
        tuned = out / f"{name.replace(' ', '-')}_{case}.pt"
        base = read_network(folder / "base.pt")
        backgrounds = read_backgrounds(data, seed)["train"]
        # Every row sees the same random numbers.
        rng = np.random.default_rng([seed, 9, 1])
        mixture = Mixture(world.pictures("train"), backgrounds, frames, plan.tune_share, plan.batch, rng)
        train(copy.deepcopy(base), mixture, plan.tune_steps, plan.tune_rate, tuned, base, plan.tune_move)
        rows[name] = {"frames": len(keys), "with labels": len(frames), **_figures(tuned, world)}
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"seed {seed}: {name}: unseen AP {rows[name]['unseen']:.2f}, seen {rows[name]['seen']:.2f}", flush=True)
    return {"recorded": len(mined.ranked) if mined else None, "rows": rows}


def _figures(model: Path, world: World) -> dict[str, float]:
    network = read_network(model)
    return {part: float(score(network, world.pictures(part))["AP"]) for part in ("unseen", "seen")}


def summary(seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Per seed and kind of row the mean AP, and what the store gains over random frames."""
    result: dict[str, Any] = {}
    for seed, found in seeds.items():
        kinds: dict[str, list[float]] = {}
        for name, row in found["rows"].items():
            kinds.setdefault(name.rstrip("0123456789 "), []).append(row["unseen"])
        means = {kind: float(np.mean(values)) for kind, values in kinds.items()}
        result[str(seed)] = {**means, "store - random": means["store"] - means["random"]}
    gains = [row["store - random"] for row in result.values()]
    spread = float(np.std(gains, ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else None
    return {"seeds": result, "gain": float(np.mean(gains)), "standard_error": spread}


def show(found: dict[str, Any], count: int) -> None:
    """Print one row per seed."""
    table = Table(title=f"AP on unseen objects after learning from {count} frames")
    columns = ("before", "random", "random certified", "store", "store - random")
    for name in ("seed", *columns):
        table.add_column(name, justify="right")
    for seed, row in found["seeds"].items():
        table.add_row(seed, *(f"{row[name]:.2f}" for name in columns))
    console = Console(width=120)
    console.print(table)
    error = "unknown" if found["standard_error"] is None else f"{found['standard_error']:.2f}"
    console.print(f"store - random: {found['gain']:+.2f} ± {error}")


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="of benchmarks.unseen")
    parser.add_argument("--data", type=Path, required=True, help="holds photos/ and textures/")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=seed_list, default="0,1,2")
    parser.add_argument("--frames", type=at_least(1), default=60, help="kept per row")
    parser.add_argument("--visits", type=at_least(1), help="to places that come again; default: every video once")
    parser.add_argument("--draws", type=at_least(1), default=2, help="random sets of each kind")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        plan = Plan()
        seeds = {
            seed: run_seed(
                options.work / f"seed_{seed}",
                options.work / "sampling" / f"seed_{seed}",
                options.data,
                plan,
                seed,
                options.frames,
                options.draws,
                options.visits,
            )
            for seed in options.seeds
        }
        content = {
            "frames": options.frames,
            "visits": options.visits,
            **summary(seeds),
            "rows": {str(s): found for s, found in seeds.items()},
        }
        show(content, options.frames)
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
