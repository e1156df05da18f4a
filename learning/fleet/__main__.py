"""python -m learning.fleet: merge the stores of many robots, publish a model to them, pull it on each.

Exit codes: 0 ok, 2 usage, 4 model, 5 store or URL.
"""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import NoReturn

from engine.errors import EngineError, StoreError, UsageError
from engine.registry import Registry
from learning.fleet.exchange import publish, pull, pull_once
from learning.fleet.merge import as_json, merge_fleet

_TOLD_EVERY = 1000


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists all)")


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = _Parser(prog="python -m learning.fleet", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="merge|publish|pull", parser_class=_Parser)
    merging = commands.add_parser("merge", help="one store without duplicates, what is most useful of all robots")
    merging.add_argument(
        "stores", nargs="+", metavar="STORE", help="selection store or mined store, path or fsspec URL"
    )
    merging.add_argument("--out", type=Path, required=True, metavar="STORE", help="new selection store")
    merging.add_argument("--frames", type=int, metavar="N", help="the N that teach most together (default: all)")
    merging.add_argument("--json", type=Path, metavar="FILE", help="also write the counts here")
    publishing = commands.add_parser("publish", help="make a registry's current version the current one at a URL")
    publishing.add_argument("registry", type=Path)
    publishing.add_argument("url", help="any fsspec URL")
    pulling = commands.add_parser("pull", help="take the current version at a URL into a robot's registry")
    pulling.add_argument("url")
    pulling.add_argument("registry", type=Path)
    pulling.add_argument("--every", type=float, metavar="S", help="go on looking every S seconds until interrupted")
    return parser


def _told(stage: str, done: int) -> None:
    if done % _TOLD_EVERY == 0:
        print(f"{stage}: {done} frames", file=sys.stderr)


def run(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    if options.command == "merge":
        counts = merge_fleet(options.stores, options.out, options.frames, _told)
        if options.json is not None:
            try:
                options.json.write_text(as_json(counts), encoding="utf-8")
            except OSError as error:
                raise StoreError(f"--json {options.json}: {error.strerror or error}") from None
        said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        print(f"{options.out}: {said}")
    elif options.command == "publish":
        print(f"{options.url}: {publish(Registry(options.registry), options.url).name} is current")
    elif options.every is None:
        done, version = pull(options.url, Registry(options.registry))
        print(f"{options.registry}: {done}, {version.name if version else 'no version'} is current")
    elif options.every <= 0:
        raise UsageError(f"--every {options.every:g}: must be above 0")
    else:
        logging.basicConfig(format="%(message)s")
        while True:
            pull_once(options.url, Registry(options.registry))
            time.sleep(options.every)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    try:
        run(build_parser().parse_args(argv))
    except EngineError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
