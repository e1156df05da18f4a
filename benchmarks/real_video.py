"""Retraining on unlabelled real video, and what it is worth on labelled real video.

    python -m benchmarks.real_video --data DATA --base MODEL.pt --replay SHARDS --work DIR --json FILE
        [--clips 135] [--frames 60] [options of learning.retrain: --steps 200 --rate 3e-5 ...]

1. The engine runs over the unlabelled clips of DATA/clips and keeps what it is sure of, as `--record` does.
2. `learning.retrain` fine-tunes the base on it and decides, without looking at anything below, whether it is better.
3. Base and retrained network run in the whole engine over DATA/davis_dev, streaming and causal, both in float32:
   J_fg per sequence, before and after. These frames only score: they come last, and nothing depends on them.

Interrupted, the same command goes on. A network that was refused is scored, too: that shows what the gate kept out.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine
from benchmarks.davis import Sequence, sequences
from benchmarks.footage import ForegroundJudge, run_sequence
from benchmarks.options import at_least
from engine.config import EngineConfig
from engine.errors import EngineError, StoreError
from engine.frame import Frame
from engine.perceive.network import DEFAULT_MODEL, Network
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from learning.footage import find_clips, is_held_out, spread
from learning.retrain import __main__ as retrain
from learning.retrain.folder import MODEL, RESULT
from streaming.store.writer import StoreWriter

_FALLBACK_FPS = 25.0


def chosen_clips(folder: Path, count: int) -> list[Path]:
    """At most `count` clips, as many of every source as there are to be had, none of those kept apart to measure.

    Raises:
        UsageError: no clips there.
    """
    by_source: dict[str, list[Path]] = {}
    for clip in find_clips(folder):
        if not is_held_out(clip):
            by_source.setdefault(clip.parent.name, []).append(clip)
    chosen: list[Path] = []
    # The small sources first: what they cannot give, the large ones do.
    for left, clips in zip(range(len(by_source), 0, -1), sorted(by_source.values(), key=len), strict=True):
        chosen += spread(clips, (count - len(chosen)) // left)
    return chosen


def record(clips: list[Path], frames: int, store: Path, config: EngineConfig) -> dict[str, int]:
    """Run the engine over the beginnings of the clips; returns what was kept and what was not, by cause.

    A store that was begun and not completed is made anew.
    """
    done = store.with_suffix(".json")
    if done.exists():
        found: dict[str, int] = json.loads(done.read_text(encoding="utf-8"))
        return found
    for path in store.parent.glob(f"{store.name}*"):
        path.unlink()
    network = Network(DEFAULT_MODEL, threads=config.perceive.threads)
    recorder = Recorder(StoreWriter(store), config.record)
    for clip in _progress("recording", clips):
        pipeline, name = Pipeline(config, network), f"{clip.parent.name}/{clip.stem}"
        capture = cv2.VideoCapture(str(clip))
        step_ns = int(1e9 / (capture.get(cv2.CAP_PROP_FPS) or _FALLBACK_FPS))
        for index in range(frames):
            read, image = capture.read()
            if not read:
                break
            frame = Frame(image, index, time.time_ns(), name, pts_ns=index * step_ns)
            recorder.step(frame, pipeline.step(frame))
        recorder.step(None, pipeline.flush())
        capture.release()
    recorder.close()
    counts = {"clips": len(clips), "kept": recorder.kept, **recorder.causes}
    done.write_text(json.dumps(counts), encoding="utf-8")
    return counts


def newest_run(runs: Path) -> Path:
    """Folder of the last finished retraining.

    Raises:
        StoreError: there is none.
    """
    finished = sorted(path.parent for path in runs.glob(f"run-*/{RESULT}"))
    if not finished:
        raise StoreError(f"{runs}: no finished retraining")
    return finished[-1]


def score(model: Path, footage: list[Sequence], config: EngineConfig) -> dict[str, float]:
    """J_fg of the final masks per sequence, first and last frame left out."""
    network = Network(model, backend="torch", threads=config.perceive.threads)
    rows = {
        sequence.name: run_sequence(sequence, Pipeline(config, network), [ForegroundJudge()])
        for sequence in _progress(f"scoring {model.parent.name}/{model.name}", footage)
    }
    return {name: float(row["final"]["J_fg"]) for name, row in rows.items()}


def compared(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Means, and the paired difference over sequences with its standard error."""
    gains = np.array([after[name] - before[name] for name in before])
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")
    return {
        "before": float(np.mean(list(before.values()))),
        "after": float(np.mean(list(after.values()))),
        "gain": float(gains.mean()),
        "standard_error": error,
    }


def _progress(description: str, items: list[Any]) -> Any:
    console = Console(stderr=True)
    return track(items, description=description, console=console, transient=True, disable=not console.is_terminal)


def show(content: dict[str, Any]) -> None:
    """Print the verdict and one row per sequence."""
    table = Table(title="J_fg of the engine's final masks, unlabelled clips learned from in between")
    for column in ("sequence", "before", "after"):
        table.add_column(column, justify="right" if column != "sequence" else "left")
    for name, value in content["sequences"]["before"].items():
        table.add_row(name, f"{value:.3f}", f"{content['sequences']['after'][name]:.3f}")
    mean = content["mean"]
    table.add_row("mean", f"{mean['before']:.3f}", f"{mean['after']:.3f}")
    console = Console(width=120)
    console.print(table)
    console.print(f"after - before: {mean['gain']:+.4f} ± {mean['standard_error']:.4f}")
    console.print(content["verdict"])


def main(arguments: list[str] | None = None) -> int:
    """Record, retrain, score; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds clips/ and davis_dev/")
    parser.add_argument("--base", type=Path, required=True, help="model.pt")
    parser.add_argument("--replay", type=Path, required=True, help="shards the base was trained on")
    parser.add_argument("--work", type=Path, required=True, help="folder for store, runs and registry")
    parser.add_argument("--store", type=Path, help="a selection store recorded before, instead of the clips")
    parser.add_argument("--clips", type=at_least(1), default=135, help="clips to record, sources alike")
    parser.add_argument("--frames", type=at_least(2), default=60, help="of each clip")
    parser.add_argument("--json", type=Path)
    options, more = parser.parse_known_args(arguments)
    config, work = EngineConfig(), options.work
    try:
        footage = list(sequences(options.data / "davis_dev"))
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--work {work}: {error.strerror or error}") from None
        store, recorded = options.store, {}
        if store is None:
            store = work / "clips.store"
            clips = chosen_clips(options.data / "clips", options.clips)
            recorded = record(clips, options.frames, store, config)
        runs = work / "runs"
        if not list(runs.glob(f"run-*/{RESULT}")):
            paths = {"store": store, "base": options.base, "registry": work / "registry", "replay": options.replay}
            named = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
            if (code := retrain.main([*named, "--out", str(runs), *more])) != 0:
                return code
        run = newest_run(runs)
        result = json.loads((run / RESULT).read_text(encoding="utf-8"))
        before, after = (score(model, footage, config) for model in (options.base, run / MODEL))
        content = {
            "verdict": result["verdict"]["reason"],
            "promoted": result["verdict"]["promoted"],
            "recorded": recorded,
            "figures": result["figures"],
            "facts": result["facts"],
            "mean": compared(before, after),
            "sequences": {"before": before, "after": after},
        }
        show(content)
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
