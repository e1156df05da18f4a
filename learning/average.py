"""python -m learning.average: the weighted mean of two networks of which one was trained on from the other.

Between the ends of such a run the loss is flat: the mean is often better than both, and costs no training.
"""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from engine.errors import EngineError, ModelError, StoreError, UsageError


def read(path: Path) -> dict[str, Any]:
    """Content of a model.pt.

    Raises:
        ModelError: missing, or not a model.pt of this program.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if not {"config", "state", "objective"} <= set(stored):
            raise TypeError("no weights in it")
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a model.pt of this program ({' '.join(str(error).split())[:80]})") from None
    return stored  # type: ignore[no-any-return]


def average(first: dict[str, Any], second: dict[str, Any], share: float) -> dict[str, Any]:
    """(1 - share) first + share second, tensor by tensor; counters are the first's.

    Raises:
        ModelError: networks of different shape.
    """
    a, b = first["state"], second["state"]
    if first["config"] != second["config"] or any(n not in b or b[n].shape != v.shape for n, v in a.items()):
        raise ModelError("the two networks differ in shape: only weights of one network can be averaged")
    state = {
        n: ((1 - share) * v.float() + share * b[n].float()).to(v.dtype) if v.is_floating_point() else v
        for n, v in a.items()
    }
    training = {"average": [1 - share, share], "of": [first.get("training", {}), second.get("training", {})]}
    return {**first, "state": state, "training": training}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.average", description=__doc__)
    parser.add_argument("first", type=Path, help="model.pt")
    parser.add_argument("second", type=Path, help="model.pt trained on from the first")
    parser.add_argument("--share", type=float, default=0.5, help="of the second, between 0 and 1")
    parser.add_argument("--out", type=Path, required=True, help="model.pt to write")
    args = parser.parse_args(argv)
    try:
        if not 0 < args.share < 1:
            raise UsageError(f"--share {args.share:g}: must be between 0 and 1")
        mean = average(read(args.first), read(args.second), args.share)
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            torch.save(mean, args.out)
        except (OSError, RuntimeError) as error:
            raise StoreError(f"--out {args.out}: {' '.join(str(error).split())[:80]}") from None
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
