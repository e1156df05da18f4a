"""python -m export: turn a checkpoint into a model file the engine loads, or refuse."""

import argparse
import sys
import tempfile
from pathlib import Path

import onnx

from engine.errors import EngineError, StoreError, UsageError
from export.checkpoint import load_checkpoint
from export.frames import drawn_frames, shard_frames
from export.graph import contract_metadata, set_metadata, write_graph
from export.parity import LIMITS, Parity, check, measure
from export.quantise import quantise

TARGETS = ("onnx", "int8")
_PLANNED = ("openvino", "tensorrt")
_CALIBRATION_SEED, _PARITY_SEED = 11, 12


def export(
    checkpoint_path: Path,
    target: str,
    out: Path,
    data: Path | None = None,
    name: str = "compact",
    calibration_frames: int = 200,
    parity_frames: int = 40,
) -> Parity:
    """Write `out` and return how well it agrees with its network; leaves no file when it does not.

    Args:
        target: "onnx" (fp32) or "int8".
        data: folder of shards; calibration reads train_*, the parity check held_*. Without it both use
            drawn shapes.

    Raises:
        UsageError: unknown target.
        ModelError: bad checkpoint or failed parity.
        StoreError: `out` cannot be written.
    """
    if target in _PLANNED:
        raise UsageError(f"--to {target} is not available yet: use one of {', '.join(TARGETS)}")
    if target not in TARGETS:
        raise UsageError(f"--to {target} is unknown: use one of {', '.join(TARGETS)}")
    if not out.parent.is_dir():
        raise StoreError(f"--out {out}: folder {out.parent} does not exist; create it first")
    checkpoint = load_checkpoint(checkpoint_path)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        path = Path(scratch) / "fp32.onnx"
        write_graph(checkpoint, path)
        if target == "int8":
            if data is None:
                calibration = list(drawn_frames(calibration_frames, _CALIBRATION_SEED))
            else:
                calibration = shard_frames(data, "train", calibration_frames, _CALIBRATION_SEED)
            quantised = Path(scratch) / "int8.onnx"
            quantise(path, quantised, calibration)
            path = quantised
        model = onnx.load(path)
        set_metadata(model, contract_metadata(checkpoint, name))
        onnx.checker.check_model(model)
        final = Path(scratch) / "final.onnx"
        onnx.save(model, final)
        if data is None:
            independent = list(drawn_frames(parity_frames, _PARITY_SEED))
        else:
            independent = shard_frames(data, "held", parity_frames, _PARITY_SEED)
        parity = measure(checkpoint.network, final, independent)
        check(parity, LIMITS[target], target)
        final.replace(out)
    return parity


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="model.pt of python -m learning.pretrain")
    parser.add_argument("--to", required=True, dest="target", help=" | ".join(TARGETS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of shards to calibrate and check on (default: drawn shapes)")
    parser.add_argument("--name", default="compact", help="name the engine reports")
    args = parser.parse_args(argv)
    try:
        parity = export(args.checkpoint, args.target, args.out, args.data, args.name)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parity}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
