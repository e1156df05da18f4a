"""python -m export.third_party: write other people's networks as ONNX files the engine runs.

python -m export.third_party maskrcnn --out FILE.onnx [--weights FILE.pt]     torchvision's Mask R-CNN R50-FPN
python -m export.third_party prototype --out FILE.onnx [--weights FILE.pt]    a small network in YOLO-seg's layout
"""

import argparse
import json
import sys
from pathlib import Path

from engine.errors import EngineError, UsageError
from engine.perceive.adapters.mask_rcnn import MaskRcnnRunner
from engine.perceive.adapters.prototype import PrototypeRunner
from export.third_party import mask_rcnn, prototype
from export.third_party.write import write

_SIZES = {"maskrcnn": "480x832", "prototype": "384x640"}


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="python -m export.third_party", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", choices=sorted(_SIZES))
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--weights", type=Path, metavar="FILE.pt", help="state dictionary (default: random weights)")
    parser.add_argument("--size", metavar="HxW", help=f"of the input, multiples of 32 (default {_SIZES})")
    parser.add_argument("--proposals", type=int, default=100, metavar="N", help="masks per frame (default 100)")
    parser.add_argument(
        "--regions", type=int, default=1000, metavar="N", help="regions Mask R-CNN looks at (default 1000, its own)"
    )
    return parser


def export(arguments: argparse.Namespace) -> dict[str, float]:
    """Write the file; returns how far it is from its network, per output.

    Raises:
        EngineError: what cannot be used or written, with its exit code.
    """
    size = _size(arguments.size or _SIZES[arguments.network])
    for name in ("proposals", "regions"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    adapter = MaskRcnnRunner if arguments.network == "maskrcnn" else PrototypeRunner
    metadata = {
        "format": arguments.network,
        "name": arguments.out.stem,
        "normalisation": json.dumps(adapter.normalisation),
        "letterbox": adapter.place,
        "proposals": str(arguments.proposals),
    }
    if arguments.network == "maskrcnn":
        network = mask_rcnn.build(arguments.weights, size, arguments.proposals, arguments.regions)
        return write(network, size, ("boxes", "labels", "scores", "masks"), metadata, arguments.out)
    return write(prototype.build(arguments.weights, size), size, ("predictions", "prototypes"), metadata, arguments.out)


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.partition("x")
    if not (separator and height.isdigit() and width.isdigit()):
        raise UsageError(f"--size {text}: expected HEIGHTxWIDTH, e.g. 480x832")
    return int(height), int(width)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        differences = export(arguments)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    told = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB; differs from the network by {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
