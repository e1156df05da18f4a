"""python -m learning.retrain: fine-tune on what the engine selected, and put the network in use if it is better.

Exit codes: 0 promoted or kept (the last line says which and why), 2 usage, 4 model, 5 store or disk, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path

# A spinning OpenMP thread makes a step many times slower as soon as anything else runs; read before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import torch
from rich.console import Console

from engine.errors import EngineError, UsageError
from learning.retrain.run import Request, retrain
from learning.retrain.settings import PARTS, Settings, resolve_parts


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m learning.retrain", description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="selection store, written by the engine's --record")
    parser.add_argument("--base", type=Path, required=True, help="model.pt to start from, of learning.pretrain or here")
    parser.add_argument("--registry", type=Path, required=True, help="folder of models that engines watch (--models)")
    parser.add_argument("--replay", type=Path, help="shards the base was trained on, by python -m learning.synthesis")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder of runs; an interrupted one goes on (default: STORE.retrain)")
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="PART",
        help=f"what learns: {', '.join(PARTS)}, heads, all (default: all, or heads without --replay)",
    )
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--rate", type=float, default=default.rate, help="peak of the learning rate")
    parser.add_argument("--share", type=float, default=default.share, help="of a batch that are selections")
    parser.add_argument("--move", type=float, default=default.move, help="from the base (0) to what was learned (1)")
    parser.add_argument("--margin", type=float, default=default.margin, help="what the old data may lose")
    parser.add_argument("--frames", type=int, default=default.frames, help="selections learned from, most useful first")
    parser.add_argument("--held-frames", type=int, default=default.held_frames, help="selections that judge")
    parser.add_argument("--old-frames", type=int, default=default.old_frames, help="labelled frames that judge")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--to", choices=("int8", "onnx"), default="int8", help="what goes into the registry (onnx: fp32)"
    )
    parser.add_argument("--save-every", type=float, default=30, help="seconds between checkpoints")
    parser.add_argument("--workers", type=int, default=1, help="processes that share every batch (above 1: needs Ray)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _request(args: argparse.Namespace) -> Request:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device: use --device cpu")
    if args.save_every <= 0:
        raise UsageError(f"--save-every {args.save_every:g}: must be above 0")
    if args.workers < 1 or args.batch % args.workers:
        raise UsageError(f"--workers {args.workers}: must be 1 or more and divide --batch {args.batch}")
    settings = Settings(
        parts=resolve_parts(args.parts, args.replay is not None),
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        share=args.share,
        move=args.move,
        margin=args.margin,
        frames=args.frames,
        held_frames=args.held_frames,
        old_frames=args.old_frames,
        seed=args.seed,
    )
    out = args.out or args.store.with_name(f"{args.store.name}.retrain")
    return Request(
        args.store,
        args.base,
        args.registry,
        args.replay,
        out,
        args.device,
        settings,
        args.to,
        args.save_every,
        args.workers,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    args = _parser().parse_args(argv)
    # Batches are drawn on one thread beside the step; more would take the cores from it.
    cv2.setNumThreads(1)
    try:
        outcome = retrain(_request(args), Console(stderr=True))
    except EngineError as error:
        if args.debug:
            raise
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"report: {outcome.folder / 'report.html'}")
    if outcome.placed is not None:
        print(f"registry: {outcome.placed}; base of the next retraining: {outcome.folder / 'model.pt'}")
    print(outcome.verdict.reason)
    return 0


if __name__ == "__main__":
    sys.exit(main())
