"""python -m learning.contact_sheet: a picture of labelled samples, to look at before training on them."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from engine.errors import EngineError, StoreError, UsageError
from learning.synthesis.sample import LABEL_STRIDE, Kind
from learning.synthesis.shards import Shards

_COLOURS = {Kind.MOVING: (0, 200, 0), Kind.STATIC: (255, 80, 0), Kind.DISTRACTOR: (0, 160, 255)}
"""BGR; unsure pixels turn gray instead."""


def draw(image: np.ndarray, ids: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Labels over an image.

    Args:
        image: uint8 [H, W, 3] RGB.
        ids: uint8 [H/2, W/2]; kinds: uint8 [32].

    Returns:
        uint8 [H/2, W/2, 3] BGR: moving green, static blue, distractors orange, ignored gray, outlines white.
    """
    small = cv2.resize(image, None, fx=1 / LABEL_STRIDE, fy=1 / LABEL_STRIDE, interpolation=cv2.INTER_AREA)[..., ::-1]
    out = small.astype(np.float32)
    kind = kinds[ids]
    for value, colour in _COLOURS.items():
        out[kind == value] = 0.5 * out[kind == value] + 0.5 * np.array(colour, np.float32)
    out[kind == Kind.UNSURE] = 0.35 * out[kind == Kind.UNSURE] + 0.65 * 128
    inner = cv2.erode(ids, np.ones((3, 3), np.uint8)) != cv2.dilate(ids, np.ones((3, 3), np.uint8))
    out[inner & ((kind == Kind.MOVING) | (kind == Kind.STATIC))] = 255
    return out.astype(np.uint8)


def sheet(shards: Shards, count: int, columns: int, seed: int) -> np.ndarray:
    """`count` random samples as one picture, uint8 BGR."""
    chosen = np.random.default_rng(seed).permutation(len(shards))[:count]
    tiles = []
    for index in sorted(int(i) for i in chosen):
        image, _, ids, kinds, _ = shards[index]
        tiles.append(draw(image, ids, kinds))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.contact_sheet", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--prefix", default="label", help="train | held | label")
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG")
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        for name, low in (("count", 1), ("columns", 1), ("seed", 0)):
            if getattr(args, name) < low:
                raise UsageError(f"--{name} {getattr(args, name)}: must be {low} or more")
        if not cv2.haveImageWriter(str(args.out)):
            raise UsageError(f"--out {args.out}: no picture format '{args.out.suffix}': give a .png or .jpg")
        if not cv2.imwrite(str(args.out), sheet(Shards(args.data, args.prefix), args.count, args.columns, args.seed)):
            raise StoreError(f"--out {args.out} cannot be written")
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
