"""`python -m engine.registry`: list, place, verify, roll back and clean up the versions of a registry folder."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import EngineError, ModelError, UsageError
from engine.registry.check import check_model
from engine.registry.registry import Registry
from engine.registry.version import Version


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists all)")


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = _Parser(prog="python -m engine.registry", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("folder", type=Path, metavar="DIR", help="the registry")
        return added

    listing = command("list", "every version, the current one marked")
    listing.add_argument("--json", action="store_true", help="with whole manifests")
    place = command("place", "check a model, add it and make it current; engines that watch the folder take it")
    place.add_argument("model", type=Path, metavar="MODEL.onnx")
    place.add_argument("--manifest", type=Path, metavar="FILE", help="JSON kept beside it: training, metrics")
    verify = command("verify", "compare files with their manifests and run each model for three frames")
    verify.add_argument("version", nargs="?", help="number or name; default: all")
    rollback = command("rollback", "withdraw the current version for good and go back to the one before")
    rollback.add_argument("--reason", default="rolled back by hand")
    gc = command("gc", "delete old versions, never the current one nor the one before it")
    gc.add_argument("--keep", type=int, default=5, metavar="N", help="newest good versions to keep (default 5)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Do what was asked for and print the outcome.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    registry = Registry(options.folder)
    if options.command == "place":
        version = registry.place(options.model, _read_manifest(options.manifest))
        print(f"{version.name} is current")
        return
    if not options.folder.is_dir():
        raise UsageError(f"registry {options.folder}: no such folder; `place` makes one")
    if options.command == "list":
        _list(registry, options.json)
    elif options.command == "verify":
        _verify(registry, options.version)
    elif options.command == "rollback":
        after = registry.rollback(reason=options.reason)
        print(
            f"{after.name} is current" if after else "no earlier version: engines go back to the model they start with"
        )
    else:
        removed = registry.gc(options.keep)
        print(f"{len(removed)} deleted, {len(registry.versions())} left")


def _read_manifest(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--manifest {path}: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--manifest {path}: a JSON object is needed")
    return content


def _list(registry: Registry, as_json: bool) -> None:
    withdrawn, current = registry.withdrawn(), registry.current()
    rows: list[dict[str, Any]] = []
    for version in registry.versions():
        state = "current" if version == current else "withdrawn" if version.name in withdrawn else ""
        rows.append({"name": version.name, "state": state, "manifest": dict(version.manifest)})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        manifest = row["manifest"]
        metrics = json.dumps(manifest.get("metrics", {}), separators=(",", ":"))
        size_mb, created = manifest["size"] / 1e6, manifest.get("created", "")
        print(f"{row['name']}  {row['state']:9}  {created}  {size_mb:6.2f} MB  {metrics}")
    if not rows:
        print("no versions")


def _verify(registry: Registry, wanted: str | None) -> None:
    versions = [v for v in registry.versions() if wanted in (None, v.name, str(v.number))]
    if wanted is not None and not versions:
        raise ModelError(f"version {wanted}: not in {registry.folder}, or its manifest cannot be read")
    if wanted is None:
        registry.current()
    bad = [version for version in versions if not _report(registry, version)]
    if bad:
        raise ModelError(f"{len(bad)} of {len(versions)} versions are damaged: {', '.join(v.name for v in bad)}")


def _report(registry: Registry, version: Version) -> bool:
    try:
        registry.verify(version)
        check_model(version.path)
    except ModelError as error:
        print(f"{version.name}  damaged: {error}")
        return False
    print(f"{version.name}  ok")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 2 usage, 4 model, 5 store)."""
    try:
        run(build_parser().parse_args(argv))
    except EngineError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
