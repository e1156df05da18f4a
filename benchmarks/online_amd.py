"""AMD learning online beside the engine: what it does to the masks, to the frame rate, and what poison does to it.

    python -m benchmarks.online_amd --base MODEL.pt --data DATA [--frames 40] [--recorded-with network]
    python -m benchmarks.online_amd --base MODEL.pt --poison
    python -m benchmarks.online_amd --base MODEL.pt --source CLIP [--pairs 4] [--cue network]

`--data` (a folder that holds davis_dev/): every sequence is shown to an engine that records it; the learner reads the
store once, in order, a round for every few usable pairs; fresh engines are scored with the base as their background cue
and with what the registry holds after every swap. No clock is involved, so the same command gives the same figures.
With so few frames the defaults would learn nothing at all: every frame is recorded that the engine is certain of, and
`--min-pairs` are enough. `--recorded-with network` records with the model's own map instead of the base's.

`--poison`: noise, black, one picture for ever, two pictures in a loop, a grainy standstill, as if all of it had been
recorded. `--source`: see `benchmarks.online_amd_speed`. No annotation is seen by anything but the score.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine, online_amd_speed
from benchmarks.davis import Sequence, sequences
from benchmarks.footage import ForegroundJudge, run_sequence
from benchmarks.options import at_least
from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError, UsageError
from engine.frame import Frame
from engine.perceive.background import BackgroundCue, UniformBackground
from engine.perceive.network import DEFAULT_MODEL, Network
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from engine.registry import Registry
from learning.amd.adapt import fit
from learning.amd.checkpoint import load_amd
from learning.amd.clips import SIZE
from learning.amd.drawn import drawn_pair
from learning.amd.export import export
from learning.amd.online import OnlineLearner, OnlineSettings, StoreFeed, place
from learning.networks.amd import Amd
from streaming.background_watch import WatchedBackground
from streaming.store.writer import StoreWriter

RECORDED_WITH = ("base", "network")
MOST_LOST = 0.01
"""J_fg that no sequence may lose."""

_GRAIN_LEVELS = 12.0
_POISON_FRAMES = 90

# One thread: the same frame gives the same masks whoever else works on the machine.
_REPEATABLE = {"perceive.threads": 1, "perceive.opencv_threads": 1, "record.interval": 1}


def record(sequence: Sequence, config: EngineConfig, network: Network, cue: BackgroundCue | None, store: Path) -> int:
    """Show a sequence to an engine that records; returns how many frames it kept."""
    recorder = Recorder(StoreWriter(store), config.record)
    pipeline = Pipeline(config, network, background=cue)
    for index in range(len(sequence.frames)):
        frame = Frame(sequence.image(index), index, time.time_ns(), sequence.name)
        recorder.step(frame, pipeline.step(frame))
    recorder.step(None, pipeline.flush())
    recorder.close()
    return recorder.kept


def learn(
    learner: OnlineLearner,
    pairs: list[np.ndarray],
    per_round: int,
    registry: Registry,
    swapped: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Give the learner pairs uint8 [2, 3, h, w] in order, a round per `per_round` usable ones; place what is good.

    Args:
        swapped: called after every version placed.

    Returns:
        usable pairs, refused ones by cause, rounds, swaps, and what the last round said.
    """
    used = fresh = rounds = swaps = 0
    said = ""
    for pair in pairs:
        if not learner.add(pair):
            continue
        used, fresh = used + 1, fresh + 1
        if learner.ready and fresh >= per_round:
            verdict = learner.round()
            fresh, rounds, said = 0, rounds + 1, verdict.reason
            if verdict.promote:
                place(learner, registry, verdict)
                swaps += 1
                swapped()
    refused: dict[str, int] = {}
    for buffer in (learner.teach, learner.hold):
        for cause, count in buffer.refused.items():
            refused[cause] = refused.get(cause, 0) + count
    return {"pairs": used, "refused": refused, "rounds": rounds, "swaps": swaps, "last": said}


def measure_sequence(sequence: Sequence, base: tuple[Amd, int], options: argparse.Namespace) -> dict[str, Any]:
    """J_fg of one sequence with the base as cue, and with what the registry holds after learning from it."""
    config = configuration.apply(EngineConfig(), _REPEATABLE)
    network = Network(DEFAULT_MODEL, threads=config.perceive.threads)
    with tempfile.TemporaryDirectory(prefix="online-amd-") as scratch:
        folder = Path(scratch)
        registry = Registry(folder / "registry")
        export(*base, folder / "base.onnx", "base")
        registry.place(folder / "base.onnx", {})
        cue = WatchedBackground(registry, UniformBackground())

        def j_fg() -> float:
            pipeline = Pipeline(config, network, background=cue)
            found: float = run_sequence(sequence, pipeline, [ForegroundJudge()])["final"]["J_fg"]
            return found

        recorded = record(
            sequence, config, network, None if options.recorded_with == "network" else cue, folder / "store.db"
        )
        # The same file gives the same masks: what is not replaced need not be measured again.
        trail = [j_fg()]

        def swapped() -> None:
            cue.look()
            trail.append(j_fg())

        settings = OnlineSettings(min_pairs=options.min_pairs, share=1.0, channel=options.channel)
        pairs = StoreFeed(folder / "store.db", settings.max_gap).read()
        row = learn(OnlineLearner(base[0], settings), pairs, options.pairs_per_round, registry, swapped)
    return {"recorded": recorded, **row, "before": trail[0], "after": trail[-1], **falls(trail), "trail": trail}


def falls(trail: list[float]) -> dict[str, float]:
    """What swaps cost: the worst single one, and the deepest fall below the best that came before.

    Args:
        trail: J_fg with the base, then after every swap.
    """
    best = np.maximum.accumulate(trail)
    return {
        "worst_swap": round(float(np.diff(trail).min()), 4) if len(trail) > 1 else 0.0,
        "worst_fall": round(float((np.asarray(trail) - best).min()), 4),
    }


def poison(seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Streams that teach nothing true: a name, and frames uint8 [N, 3, *SIZE]."""
    rng = np.random.default_rng(seed)
    one, other = (fit(np.ascontiguousarray(image[..., ::-1])) for image in drawn_pair(rng).images)
    count, shape = _POISON_FRAMES, (_POISON_FRAMES, 3, *SIZE)
    yield "noise", rng.integers(0, 256, shape, np.uint8)
    yield "black", np.zeros(shape, np.uint8)
    yield "one picture", np.stack([one] * count)
    yield "two in a loop", np.stack([one, other] * (count // 2))
    yield "grainy standstill", np.clip(one + rng.normal(0, _GRAIN_LEVELS, shape), 0, 255).astype(np.uint8)


def measure_poison(base: Amd, options: argparse.Namespace) -> dict[str, Any]:
    """What the learner makes of every poisoned stream."""
    rows = {}
    for name, frames in poison():
        with tempfile.TemporaryDirectory(prefix="online-amd-") as scratch:
            settings = OnlineSettings(min_pairs=options.min_pairs, share=1.0, channel=options.channel)
            pairs = [frames[i : i + 2] for i in range(len(frames) - 1)]
            registry = Registry(Path(scratch) / "registry")
            rows[name] = learn(OnlineLearner(base, settings), pairs, options.pairs_per_round, registry)
    return rows


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything asked for.

    Raises:
        EngineError: a file, a sequence or a store that cannot be used.
    """
    network, channel, training = load_amd(options.base)
    options.channel = training.get("channel_rule", OnlineSettings.channel)
    content: dict[str, Any] = {"channel": options.channel, "min_pairs": options.min_pairs}
    if options.poison:
        content["poison"] = measure_poison(network, options)
    if options.data:
        wanted = options.only.split(",") if options.only else None
        rows = {}
        for sequence in sequences(options.data / "davis_dev"):
            if wanted is None or sequence.name in wanted:
                rows[sequence.name] = measure_sequence(sequence.first(options.frames), (network, channel), options)
                console.print(f"{sequence.name}: {rows[sequence.name]}", highlight=False)
        if not rows:
            raise UsageError(f"--only {options.only}: no sequence of that name")
        mean = {kind: round(float(np.mean([row[kind] for row in rows.values()])), 4) for kind in ("before", "after")}
        worst = min(row["after"] - row["before"] for row in rows.values())
        content |= {"recorded_with": options.recorded_with, "sequences": rows, "mean": mean, "worst": round(worst, 4)}
        content |= {kind: min(row[kind] for row in rows.values()) for kind in ("worst_swap", "worst_fall")}
    if options.source:
        content["speed"] = online_amd_speed.measure(
            options.base, options.source, options.pairs, options.speed_frames, options.cue, console
        )
    return content


def show(content: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    if "poison" in content:
        table = Table("stream", "usable pairs", "refused", "rounds", "swaps", title="poison", title_justify="left")
        for name, row in content["poison"].items():
            table.add_row(name, str(row["pairs"]), str(row["refused"]), str(row["rounds"]), str(row["swaps"]))
        console.print(table)
    if "sequences" in content:
        names = ("recorded", "pairs", "rounds", "swaps", "before", "after", "worst_swap", "worst_fall")
        title = f"J_fg with AMD as the cue, recorded with {content['recorded_with']}"
        table = Table("sequence", *names, title=title, title_justify="left")
        for name, row in content["sequences"].items():
            table.add_row(name, *(f"{row[n]:.3f}" if isinstance(row[n], float) else str(row[n]) for n in names))
        console.print(table)
        mean, swaps = content["mean"], sum(row["swaps"] for row in content["sequences"].values())
        console.print(f"mean {mean['before']:.3f}, then {mean['after']:.3f}; {swaps} swaps", highlight=False)
        said = f"worst change {content['worst']:+.3f} (wanted: at least -{MOST_LOST})"
        more = f"by one swap {content['worst_swap']:+.3f}, below the best before {content['worst_fall']:+.3f}"
        console.print(f"{said}; {more}", highlight=False)
    if "speed" in content:
        online_amd_speed.show(content["speed"], console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, metavar="MODEL.pt", help="AMD to begin with")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--data", type=Path, help="folder that holds davis_dev/")
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument("--frames", type=at_least(3), default=40, metavar="N", help="first N of every sequence")
    parser.add_argument("--recorded-with", choices=RECORDED_WITH, default="base", help="cue while recording")
    parser.add_argument("--min-pairs", type=at_least(4), default=16, help="usable pairs before anything is learned")
    parser.add_argument("--pairs-per-round", type=at_least(1), default=4, metavar="N", help="usable pairs per round")
    parser.add_argument("--poison", action="store_true", help="streams that teach nothing true")
    parser.add_argument("--source", help="clip for the frame rate with and without the learner")
    parser.add_argument("--cue", default="registry", help="of --source: registry (with the base in it), or network")
    parser.add_argument("--pairs", type=at_least(1), default=4, help="of runs with and without, of --source")
    parser.add_argument("--speed-frames", type=at_least(30), default=240, metavar="N", help="of --source, per run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and write the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(width=120)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # A background network without masks is what is placed here, on purpose.
    log = logging.getLogger("unseen")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        if not (options.data or options.poison or options.source):
            raise UsageError("nothing to measure: give --data, --poison or --source")
        if options.cue not in online_amd_speed.CUES:
            raise UsageError(f"--cue {options.cue}: must be {' or '.join(online_amd_speed.CUES)}")
        content = measure(options, console)
        show(content, console)
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        log.setLevel(level)
    return 0


if __name__ == "__main__":
    sys.exit(main())
