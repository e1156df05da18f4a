"""python -m export: turn a checkpoint into a model file the engine loads, or refuse.

python -m export CHECKPOINT --to onnx|int8|openvino|tensorrt --out FILE
python -m export check A B            do two model files give the same masks?
python -m export sensitivity CHECKPOINT    what does INT8 cost, layer by layer?
"""

import argparse
import sys
from pathlib import Path

from engine.errors import EngineError
from export.calibrate import METHODS
from export.convert import TARGETS, Options, export
from export.data_options import add_data_options, size_option
from learning.synthesis.sample import SIZE


def build_parser() -> argparse.ArgumentParser:
    """Options of the export itself."""
    parser = argparse.ArgumentParser(
        prog="python -m export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="model.pt of python -m learning.pretrain")
    parser.add_argument("--to", required=True, dest="target", help=" | ".join(TARGETS))
    parser.add_argument("--out", type=Path, required=True)
    add_data_options(parser)
    parser.add_argument("--name", default="compact", help="name the engine reports")
    parser.add_argument("--size", type=size_option, default=SIZE, metavar="HxW", help="of the image (256x448)")
    parser.add_argument("--half", action="store_true", help="float16, for GPUs (onnx, tensorrt)")
    parser.add_argument("--any-batch", action="store_true", help="a free batch, for several cameras (onnx)")
    parser.add_argument("--calibration", choices=METHODS, default="percentile", help="INT8 ranges")
    parser.add_argument("--keep", action="append", default=[], metavar="NODE", help="leave in fp32; see sensitivity")
    parser.add_argument("--frames", type=int, default=100, metavar="N", help="frames of the parity check")
    parser.add_argument("--min-mask-iou", type=float, metavar="X", help="accept less agreement than the usual limit")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["check"]:
            from export import compare

            return compare.main(arguments[1:])
        if arguments[:1] == ["sensitivity"]:
            from export import sensitivity

            return sensitivity.main(arguments[1:])
        args = build_parser().parse_args(arguments)
        options = Options(
            name=args.name,
            size=args.size,
            data=args.data,
            clips=args.clips,
            parity_frames=args.frames,
            half=args.half,
            any_batch=args.any_batch,
            calibration=args.calibration,
            keep=args.keep,
            min_mask_iou=args.min_mask_iou,
        )
        parity = export(args.checkpoint, args.target, args.out, options)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parity}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
