"""python -m learning.synthesis: render training samples to memory-mapped shards."""

import argparse
import multiprocessing
import sys
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engine.errors import EngineError, UsageError
from learning.synthesis.assets import build_library
from learning.synthesis.worker import render_shard

_HELD_OUT_SAMPLES = 384


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.synthesis", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with people/ coco/ animals/ photos/ textures/ clips/"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards; finished shards are kept")
    parser.add_argument("--samples", type=int, default=14000)
    parser.add_argument(
        "--held-out", type=int, default=_HELD_OUT_SAMPLES, help="samples from scenes and cut-outs kept apart"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-samples", type=int, default=500)
    parser.add_argument("--limit", type=int, help="pictures per folder, for trials")
    args = parser.parse_args(argv)
    try:
        if not args.data.is_dir():
            raise UsageError(
                f"--data {args.data} is not a folder: give the folder that holds people/, coco/, photos/ ..."
            )
        _run(args)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    build_library(args.data, args.out / "assets", args.seed, args.limit)
    jobs = []
    for prefix, total in (("held", args.held_out), ("train", args.samples)):
        for number, start in enumerate(range(0, total, args.shard_samples)):
            path = args.out / f"{prefix}_{number:04d}.shard"
            count = min(args.shard_samples, total - start)
            if not path.exists():
                jobs.append((prefix, args.out / "assets", path, args.seed, start, count))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Spawned, not forked: a forked child of a process that has used OpenCV's threads can hang in them.
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers) as pool, Progress(*columns) as progress:
        task = progress.add_task("rendering", total=sum(job[5] for job in jobs))
        for done in pool.imap_unordered(render_shard, jobs):
            progress.advance(task, done)


if __name__ == "__main__":
    sys.exit(main())
