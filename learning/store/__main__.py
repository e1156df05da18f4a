"""`python -m learning.store`: look into selection stores, export, merge, shrink and check them."""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from engine.errors import EngineError, StoreError, UsageError
from learning.store.export import Choice, export_coco, export_ytvis
from learning.store.parquet import export_parquet
from learning.store.reader import SelectionStore
from learning.store.upkeep import check, merge, vacuum

_FORMATS = {"coco": export_coco, "ytvis": export_ytvis, "parquet": export_parquet}


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = _Parser(prog="python -m learning.store", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="info|export|merge|vacuum|check")
    info = commands.add_parser("info", help="how much is stored, of what")
    info.add_argument("store", type=Path)
    info.add_argument("--json", type=Path, metavar="FILE", help="also write it here")
    export = commands.add_parser("export", help="as COCO, YouTube-VIS or Parquet")
    export.add_argument("format", choices=sorted(_FORMATS))
    export.add_argument("store", type=Path)
    export.add_argument("out", type=Path, help="a new folder; for parquet a file")
    export.add_argument("--min-score", type=float, default=0.0, metavar="X", help="leave out selections below")
    export.add_argument("--min-foreground", type=float, default=0.0, metavar="X", help="leave out selections below")
    merging = commands.add_parser("merge", help="add stores to OUT, without duplicates")
    merging.add_argument("out", type=Path)
    merging.add_argument("stores", type=Path, nargs="+")
    for name, what in (("vacuum", "give freed pages back"), ("check", "exit 5 when anything is wrong")):
        commands.add_parser(name, help=what).add_argument("store", type=Path)
    return parser


def _print_info(path: Path, out: Path | None) -> None:
    with SelectionStore(path) as store:
        content = store.info()
    table = Table("", str(path))
    for name, value in content.items():
        if isinstance(value, float):
            shown = f"{value:.3f}"
        elif isinstance(value, dict | list):
            shown = json.dumps(value)
        else:
            shown = "" if value is None else str(value)
        table.add_row(name, shown)
    Console().print(table)
    if out is not None:
        try:
            out.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"--json {out}: {error.strerror or error}") from None


def run(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    if options.command == "info":
        _print_info(options.store, options.json)
    elif options.command == "export":
        with SelectionStore(options.store) as store:
            counts = _FORMATS[options.format](store, options.out, Choice(options.min_score, options.min_foreground))
        print(f"{options.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    elif options.command == "merge":
        counts = merge(options.out, options.stores)
        print(f"{options.out}: {counts['added']} frames added, {counts['already_there']} were there already")
    elif options.command == "vacuum":
        size_mb = vacuum(options.store)
        print(f"{options.store}: {size_mb['before']:.1f} MB before, {size_mb['after']:.1f} MB after")
    else:
        problems = check(options.store)
        if problems:
            print("\n".join(problems))
            raise StoreError(
                f"{options.store}: {len(problems)} problems, listed above; merge it into a new store to save the rest"
            )
        print(f"{options.store}: sound")


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    try:
        run(build_parser().parse_args(argv))
    except EngineError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
