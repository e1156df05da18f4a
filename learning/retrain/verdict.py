"""Whether a retrained network replaces the one it came from: better on the new, no worse on the old."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learning.retrain.judge import Slice
from learning.retrain.split import FEWEST_BLOCKS

OLD_FIGURES = ("AP", "foreground IoU", "best-mask IoU")
"""What the old data may lose at most a margin of."""


@dataclass(frozen=True)
class Verdict:
    """The decision and what it rests on.

    Attributes:
        promoted: whether the new network takes over.
        reason: one line.
        gain: mean over the held-out blocks of new - base on the selections.
        error: standard error of `gain`; infinite below FEWEST_BLOCKS.
        blocks: how many.
        losses: figure -> base - new on the old data.
        margin: how much each of them may be.
    """

    promoted: bool
    reason: str
    gain: float
    error: float
    blocks: int
    losses: dict[str, float]
    margin: float


Pair = tuple[Slice, Slice]
"""What the base and what the retrained network reached on one slice."""


def frame_gains(pairs: Sequence[Pair]) -> list[float | None]:
    """Retrained - base of every frame, mean over the ways it was judged in; None where nothing is known."""
    gains = []
    for views in zip(*(zip(before.frames, after.frames, strict=True) for before, after in pairs), strict=True):
        values = [(old.overall, new.overall) for old, new in views]
        known = [b - a for a, b in values if a is not None and b is not None]
        gains.append(float(np.mean(known)) if known else None)
    return gains


def paired_gain(pairs: Sequence[Pair], blocks: Sequence[str]) -> tuple[float, float, int]:
    """Mean gain over blocks, its standard error s / sqrt(n), and n.

    Frames of one block resemble each other, so they count as one observation; the error of single frames
    would be too small.
    """
    by_block: dict[str, list[float]] = {}
    for gain, block in zip(frame_gains(pairs), blocks, strict=True):
        if gain is not None:
            by_block.setdefault(block, []).append(gain)
    gains = [float(np.mean(values)) for values in by_block.values()]
    if len(gains) < FEWEST_BLOCKS:
        return (float(np.mean(gains)) if gains else 0.0), math.inf, len(gains)
    return float(np.mean(gains)), float(np.std(gains, ddof=1) / math.sqrt(len(gains))), len(gains)


def decide(new: Sequence[Pair], old: Pair, blocks: Sequence[str], margin: float) -> Verdict:
    """Compare the networks on held-out selections and on held-out old data.

    Args:
        new: the selections with motion and as photographs. They were found with motion, partly by the base itself:
            the photographs show best what was learned.
        blocks: held-out block of every frame of `new`.
    """
    gain, error, count = paired_gain(new, blocks)
    losses = {name: old[0].figures[name] - old[1].figures[name] for name in OLD_FIGURES}
    worst = max(losses, key=lambda name: losses[name])
    if not gain > error:
        said = "unknown, too few blocks" if math.isinf(error) else f"{error:.4f}"
        reason = f"kept: gain {gain:+.4f} over {count} held-out blocks does not exceed its standard error ({said})"
    elif losses[worst] > margin:
        reason = f"kept: the old data lose {losses[worst]:.4f} of {worst}, at most {margin:g} is allowed"
    else:
        reason = (
            f"promoted: gain {gain:+.4f} ± {error:.4f} over {count} held-out blocks, the old data lose at most "
            f"{max(0.0, losses[worst]):.4f} (allowed {margin:g})"
        )
    return Verdict(reason.startswith("promoted"), reason, gain, error, count, losses, margin)
