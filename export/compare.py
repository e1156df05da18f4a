"""python -m export check A B: do two model files give the same masks?

A is the reference. Each may be a checkpoint (.pt), an ONNX file, an OpenVINO .xml or a torch-tensorrt .pt2.
Exit code 4 when a quantity is beyond its limit.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine.errors import StoreError, UsageError
from engine.perceive.backends.choose import BACKENDS
from engine.perceive.backends.runner import PRECISIONS, Runner
from export.convert import Options, open_either, parity_frames
from export.data_options import add_data_options
from export.parity import LIMITS, measure


def limits_for(paths: list[Path]) -> str:
    """Which limits fit two files: INT8's as soon as one of them is quantised, fp32's otherwise."""
    marks = {".onnx": b"QuantizeLinear", ".xml": b"FakeQuantize"}
    quantised = any(marks[p.suffix] in p.read_bytes() for p in paths if p.suffix in marks and p.is_file())
    return "int8" if quantised else "onnx"


def _size(runner: Runner) -> tuple[int, int]:
    """(h, w) of the image input."""
    height, width = runner.inputs["image"][2:]
    return int(height), int(width)


def main(argv: list[str]) -> int:
    """Print the table, return the exit code.

    Raises:
        EngineError: a file, a backend or the data cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m export check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    for side in ("a", "b"):
        parser.add_argument(f"--backend-{side}", choices=BACKENDS, default="auto")
        parser.add_argument(f"--precision-{side}", choices=PRECISIONS, default="f32")
    parser.add_argument("--limits", choices=sorted(LIMITS), help="default: int8 if a file is quantised, else onnx")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--json", type=Path)
    add_data_options(parser)
    args = parser.parse_args(argv)
    candidate = open_either(args.b, args.backend_b, precision=args.precision_b)
    size = _size(candidate)
    # A checkpoint has no size of its own: it is run at that of the file it is compared with.
    reference = open_either(args.a, args.backend_a, precision=args.precision_a, size=size)
    if _size(reference) != size:
        raise UsageError(f"{args.a} takes images of {_size(reference)}, {args.b} of {size}: they must agree")
    kind = args.limits or limits_for([args.a, args.b])
    frames = parity_frames(Options(data=args.data, clips=args.clips, parity_frames=args.frames, size=size))
    parity = measure(reference, candidate, frames)
    rows = parity.rows(LIMITS[kind])
    table = Table("quantity", "measured", f"limit ({kind})", "holds")
    for label, measured, limit, holds in rows:
        table.add_row(label, f"{measured:.4f}", limit, "yes" if holds else "NO")
    table.title = (
        f"{args.a.name} ({reference.name}) and {args.b.name} ({candidate.name}): "
        f"{parity.frames} frames, {parity.masks} masks"
    )
    Console(width=110).print(table)
    holds_all = all(holds for *_, holds in rows)
    if args.json is not None:
        result = {"a": str(args.a), "b": str(args.b), "limits": kind, "holds": holds_all, **asdict(parity)}
        try:
            args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"--json {args.json}: {error.strerror or error}") from None
    return 0 if holds_all else 4
