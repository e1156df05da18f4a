"""python -m benchmarks.unseen: does what the engine selects in unlabelled videos teach the detector unseen objects?

Base network trained on labelled stills of one family of objects; unlabelled videos of another; labels by every method;
fine-tuning with replay; AP on held-out stills of both. Killed and started again with the same --work it goes on.
"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

# A spinning OpenMP thread makes a step many times slower as soon as anything else runs; read before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import torch

from benchmarks.machine import write_report
from benchmarks.options import at_least
from benchmarks.unseen.experiment import Experiment, Row, check_plan
from benchmarks.unseen.plan import QUICK, Plan
from benchmarks.unseen.report import REAL_AND_RENDERED, plot, print_table, summarise
from engine.errors import EngineError


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unseen", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="figures; the plot is written beside it as .png")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run; an interrupted run there goes on")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with photos/ and textures/")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="number of seeds, from 0 on")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tests the plumbing, the figures mean nothing")
    parser.add_argument(
        "--jobs", type=at_least(1), default=min(2, os.cpu_count() or 1), help="processes side by side, one thread each"
    )
    args = parser.parse_args(argv)
    plan = QUICK if args.quick else Plan()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds: dict[int, dict[str, Row]] = {}
    try:
        check_plan(args.work, plan)
        for seed in range(args.seeds):
            folder = args.work / f"seed_{seed}"
            seeds[seed] = Experiment(folder, args.data, plan, seed, args.jobs).run()
            summary = summarise(seeds)
            # After every seed, so that what is there can be read while the others run.
            write_report(
                args.json,
                {"quick": args.quick, "what": REAL_AND_RENDERED, "plan": asdict(plan), **summary, "seeds": seeds},
            )
            plot(summary, seeds, args.json.with_suffix(".png"))
        print_table(summary, len(seeds))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
