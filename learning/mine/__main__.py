"""python -m learning.mine: every recording through the engine, decided as a whole; selections into Parquet shards.

Exit codes: 0 ok (recordings that cannot be read are listed and skipped), 2 usage, 3 none could be read, 4 model,
5 store, 130 interrupted: the same command goes on.
"""

import argparse
import importlib.metadata
import json
import sys
import uuid
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console

from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import EngineError, SourceError, UsageError
from engine.perceive.network import Network, resolve_model
from learning.mine.job import Job, Outcome
from learning.mine.offline import offline_config
from learning.mine.recordings import Recording, find_recordings
from learning.mine.report import show, summarise
from learning.mine.shards import MinedStore
from learning.mine.workers import parse_workers, run_jobs
from learning.retrain.progress import bars

MAX_LAG = 150
"""Five seconds at 30 Hz. Of the decisions on unlabelled clips all but one in 2,500 are exact after ten frames."""


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists all)")


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = _Parser(prog="python -m learning.mine", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "recordings", nargs="+", metavar="RECORDING", help="video, folder, MCAP, rosbag2, .bag, or an fsspec URL of one"
    )
    parser.add_argument(
        "--out", required=True, metavar="STORE", help="folder or fsspec URL; goes on with what is there"
    )
    parser.add_argument("--workers", default="1", help="number, local (one per core), or ray://HOST:PORT (default 1)")
    parser.add_argument("--model", help="shipped model or ONNX file; default: the shipped one")
    parser.add_argument(
        "--max-lag", type=int, default=MAX_LAG, metavar="N", help=f"frames kept undecided at most (default {MAX_LAG})"
    )
    parser.add_argument(
        "--retries", type=int, default=5, metavar="N", help="worker deaths a recording survives (default 5)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of the engine")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _config(options: argparse.Namespace) -> EngineConfig:
    for name, least in (("max_lag", 1), ("retries", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be {least} or more")
    if wrong := [item for item in options.set if "=" not in item]:
        raise UsageError(f"--set {wrong[0]}: must be KEY=VALUE")
    config = configuration.apply(EngineConfig(), dict(item.split("=", 1) for item in options.set))
    return offline_config(config, options.max_lag)


def mine(options: argparse.Namespace, console: Console) -> None:
    """Do what was asked for and print the report.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    config, workers = _config(options), parse_workers(options.workers)
    model = resolve_model(options.model).resolve()
    network = Network(model, threads=1)
    store, run = MinedStore(options.out), uuid.uuid4().hex
    recordings = find_recordings(options.recordings)
    version = importlib.metadata.version("unseen-engine")
    flat = json.loads(json.dumps(configuration.flatten(config)))
    store.open({"model": f"{network.name} {network.hash}", "engine": version, "config": flat})
    known = {account["origin"] for account in store.accounts()}
    todo = [recording for recording in recordings if recording.origin not in known]
    done = [Outcome(recording, None) for recording in recordings if recording.origin in known]
    jobs = [Job(recording, options.out, run, str(model), network.hash, config) for recording in _longest_first(todo)]
    outcomes = list(done)
    try:
        with bars(console) as bar:
            advance = bar("mining recordings")
            advance(len(done), len(recordings), f"{len(done)} were there")
            for outcome in run_jobs(jobs, workers, options.retries):
                outcomes.append(outcome)
                failed = sum(bool(one.problem) for one in outcomes)
                advance(len(outcomes), len(recordings), f"{failed} failed" if failed else "")
    finally:
        store.tidy(run)
    report = summarise(store.accounts(), outcomes)
    store.write_text("report.json", json.dumps(report, indent=1))
    show(report, options.out, console)
    failed_all = [outcome.problem for outcome in outcomes if outcome.problem]
    if len(failed_all) == len(recordings):
        raise SourceError(f"none of {len(recordings)} recordings could be mined; the first: {failed_all[0]}")


def _longest_first(recordings: Sequence[Recording]) -> list[Recording]:
    """The large ones first, so that no worker starts the longest when the others are done."""
    return sorted(recordings, key=lambda recording: (-recording.size, recording.uri))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    debug = "--debug" in (argv or sys.argv)
    try:
        mine(build_parser().parse_args(argv), Console(stderr=True))
    except EngineError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the recordings that are left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
