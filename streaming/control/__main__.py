"""`python -m streaming.control OP ...`: one operation on a running engine, its result as JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from engine.errors import EngineError, StoreError, UsageError
from streaming.control.client import DEFAULT_ENDPOINT, MODEL_TIMEOUT_S, ControlClient

_Run = Callable[[ControlClient, argparse.Namespace], Any]


def build_parser() -> argparse.ArgumentParser:
    """One subcommand per operation."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--endpoint", default=DEFAULT_ENDPOINT, help=f"the engine's --control ({DEFAULT_ENDPOINT})")
    common.add_argument("--keys", type=Path, metavar="DIR", help="folder of a client's keys")
    common.add_argument("--timeout", type=float, metavar="S", help="seconds to wait for the answer (default 5)")
    parser = argparse.ArgumentParser(
        prog="python -m streaming.control", description="Ask or steer a running engine; prints JSON."
    )
    operations = parser.add_subparsers(dest="op", required=True, metavar="OP")

    def add(name: str, what: str, run: _Run, source: str | None = None) -> argparse.ArgumentParser:
        operation = operations.add_parser(name, help=what, description=what, parents=[common], allow_abbrev=False)
        operation.set_defaults(run=run)
        if source is not None:
            operation.add_argument("source", nargs=source, metavar="SOURCE")
        return operation

    add("status", "what the engine is doing", lambda engine, _: engine.status())
    add("sources", "every source and its state", lambda engine, _: engine.sources())
    add("pause", "stop processing a source, or all", _call("source"), source="?")
    add("resume", "go on after pause", _call("source"), source="?")
    add("add_source", "open another source, [NAME=]URI", _call("source"), source=None).add_argument(
        "source", metavar="[NAME=]URI"
    )
    add("remove_source", "end a source", _call("source")).add_argument("source", metavar="SOURCE")
    settings = add("set", "change knobs, e.g. select.lambda_flow=2", _set)
    settings.add_argument("settings", nargs="+", metavar="KEY=VALUE")
    track = add("track", "follow this object from now on; prints its id", _track, source="?")
    prompt = track.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"), help="pixels, half-open")
    prompt.add_argument("--point", nargs=2, type=float, metavar=("X", "Y"), help="pixels")
    prompt.add_argument("--mask", type=Path, metavar="FILE", help="picture of the frame's size; the object is not 0")
    forget = add("forget", "let a tracked object go", _call("source", "object"))
    forget.add_argument("object", type=int, metavar="ID")
    forget.add_argument("source", nargs="?", metavar="SOURCE")
    add("reload_model", "run the registry's current model", _model)
    add("rollback_model", "run the model before this one", _model)
    snapshot = add("snapshot", "the newest picture and its objects", _snapshot, source="?")
    snapshot.add_argument("--what", choices=["overlay", "image", "labels"], default="overlay")
    snapshot.add_argument("--width", type=int, default=640, metavar="PX", help="at most (default 640)")
    snapshot.add_argument("--out", type=Path, metavar="FILE", required=True, help="where the picture goes")
    add("shutdown", "end the engine in good order", _call())
    return parser


def _call(*names: str) -> _Run:
    def run(engine: ControlClient, options: argparse.Namespace) -> Any:
        args = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        return engine.call(options.op, args)

    return run


def _model(engine: ControlClient, options: argparse.Namespace) -> Any:
    return engine.call(options.op, timeout_s=options.timeout or MODEL_TIMEOUT_S)


def _set(engine: ControlClient, options: argparse.Namespace) -> Any:
    settings = {}
    for item in options.settings:
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"set {item}: expected KEY=VALUE, e.g. select.lambda_flow=2")
        settings[key] = value
    return engine.set(settings)


def _track(engine: ControlClient, options: argparse.Namespace) -> Any:
    mask = None
    if options.mask is not None:
        picture = cv2.imread(str(options.mask), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise UsageError(f"mask {options.mask}: not a picture")
        mask = (picture if picture.ndim == 2 else picture[..., :3].max(axis=2)) > 0
    return {"object": engine.track(options.source, mask=mask, box=options.box, point=options.point)}


def _snapshot(engine: ControlClient, options: argparse.Namespace) -> Any:
    content = engine.snapshot(options.source, options.what, options.width)
    try:
        options.out.write_bytes(content.pop("data"))
    except OSError as error:
        raise StoreError(f"snapshot {options.out}: {error.strerror or error}") from None
    return {**content, "file": str(options.out)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 1 no answer, 2 usage, 3 source, 4 model, 5 store)."""
    options = build_parser().parse_args(argv)
    try:
        with ControlClient(
            options.endpoint, options.keys, 5.0 if options.timeout is None else options.timeout
        ) as engine:
            print(json.dumps(options.run(engine, options), indent=2))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
