"""The run-length code of COCO, as text: masks that every annotation tool reads.

A mask is read column by column; its runs alternate between outside and inside, beginning outside. From the
fourth on a run is written as the difference to the one two before it, in groups of five bits, the low ones
first, each as a printable character with a sixth bit that says whether another group follows.
"""

import numpy as np

_FIRST = 48
_GROUP_BITS = 5
_MORE = 0x20
_SIGN = 0x10
_MAX_GROUPS = 7
"""Groups a 32-bit run can need."""


class RleError(ValueError):
    """Text that is not the code of a mask of that size."""


def encode_rle(mask: np.ndarray, box: tuple[int, int, int, int] | None = None) -> str:
    """Counts of the COCO code of a mask bool [H, W].

    Args:
        mask: at most 2**31 pixels.
        box: (x0, y0, x1, y1) half-open, outside of which the mask is empty; saves looking there.
    """
    height, width = mask.shape
    x0, x1 = (0, width) if box is None else (box[0], box[2])
    columns = np.asarray(mask[:, x0:x1], bool).ravel(order="F")
    padded = np.concatenate([[False], columns, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1]) + x0 * height
    # A mask that reaches the last pixel has no run after it.
    ends = edges if len(edges) and edges[-1] == height * width else np.append(edges, height * width)
    return _to_text(np.diff(ends, prepend=0))


def decode_rle(counts: str, size: tuple[int, int]) -> np.ndarray:
    """Mask bool [H, W] of COCO counts.

    Args:
        counts: the code.
        size: (H, W).

    Raises:
        RleError: characters that do not belong there, or runs that do not add up to H x W.
    """
    height, width = size
    runs = _from_text(counts)
    if (runs < 0).any() or runs.sum() != height * width:
        raise RleError(f"runs of {runs.sum()} pixels, a mask of {height}x{width} has {height * width}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def _to_text(runs: np.ndarray) -> str:
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    characters = np.zeros((_MAX_GROUPS, len(values)), np.uint8)
    open_ = np.ones(len(values), bool)
    for group in range(_MAX_GROUPS):
        low = values & (_MORE - 1)
        values >>= _GROUP_BITS
        # The sign bit of the last group must say what the bits cut off were.
        more = np.where(low & _SIGN, values != -1, values != 0)
        characters[group, open_] = (_FIRST + low + _MORE * more)[open_]
        open_ &= more
        if not open_.any():
            break
    text = characters.T.ravel()
    return text[text > 0].tobytes().decode("ascii")


def _from_text(counts: str) -> np.ndarray:
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    except UnicodeEncodeError:
        raise RleError("characters outside ASCII") from None
    last = (codes & _MORE) == 0
    if len(codes) == 0 or codes.min() < 0 or codes.max() >= 2 * _MORE or not last[-1]:
        raise RleError("not a run-length code")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(np.append(starts, len(codes)))
    if lengths.max() > _MAX_GROUPS:
        raise RleError("a run longer than any mask")
    shift = _GROUP_BITS * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & (_MORE - 1)) << shift, starts)
    negative = (codes[last] & _SIGN) != 0
    values[negative] -= np.int64(1) << (_GROUP_BITS * lengths[negative])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
