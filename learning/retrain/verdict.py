"""Whether a retrained network replaces the one it came from: proven better on the new, proven no worse on the old."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from learning.retrain.judge import FrameScore, Slice
from learning.retrain.split import FEWEST_BLOCKS

CONFIDENCE = 0.95
"""Of every single test, one-sided. One standard error would let one useless network in six pass."""

OLD_FIGURES = {"foreground IoU": "foreground", "best-mask IoU": "best", "average precision": "precision"}
"""Figure of the labelled old data -> what it is the mean of, frame by frame."""


@dataclass(frozen=True)
class Loss:
    """What a figure of the old data loses: mean over paired frames of base - new.

    Attributes:
        error: its standard error; infinite below two frames.
        bound: what it is at most, with CONFIDENCE.
        frames: how many frames say something about it.
    """

    mean: float
    error: float
    bound: float
    frames: int


@dataclass(frozen=True)
class Verdict:
    """The decision and what it rests on.

    Attributes:
        promoted: whether the new network takes over.
        reason: one line.
        gain: mean over the held-out blocks of new - base on the selections.
        error: standard error of `gain`; infinite below FEWEST_BLOCKS.
        at_least: what the gain is at least, with CONFIDENCE.
        blocks: how many.
        losses: figure -> what the old data lose.
        margin: what each loss must stay below, its error included.
    """

    promoted: bool
    reason: str
    gain: float
    error: float
    at_least: float
    blocks: int
    losses: dict[str, Loss]
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


def paired_losses(before: Slice, after: Slice) -> dict[str, Loss]:
    """What each of OLD_FIGURES loses over the frames that both networks were judged on.

    The same frames under both networks: what makes a frame hard cancels, and the error is that of the difference.
    """
    return {name: _loss(before.frames, after.frames, field) for name, field in OLD_FIGURES.items()}


def _loss(before: Sequence[FrameScore], after: Sequence[FrameScore], field: str) -> Loss:
    pairs = [(getattr(a, field), getattr(b, field)) for a, b in zip(before, after, strict=True)]
    found = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(found) < 2:
        return Loss(float(found.mean()) if len(found) else 0.0, math.inf, math.inf, len(found))
    mean, error = float(found.mean()), float(found.std(ddof=1) / math.sqrt(len(found)))
    return Loss(mean, error, mean + _quantile(len(found)) * error, len(found))


def _quantile(count: int) -> float:
    """Student's one-sided quantile for the mean of `count` observations."""
    return float(stats.t.ppf(CONFIDENCE, count - 1))


def decide(new: Sequence[Pair], old: Pair, blocks: Sequence[str], margin: float) -> Verdict:
    """Compare the networks on held-out selections and on held-out old data, whose labels are exact.

    The selections are the engine's own answers, so a gain there alone proves little: a network that repeats the
    engine's errors gains, too. The old data therefore have to *prove* that nothing is lost. Not "no loss was seen",
    which few frames always manage, but: the loss is below the margin with its error added (a test of
    non-inferiority). An old figure about which too little is known keeps the base.

    Args:
        new: the selections with motion and as photographs. They were found with motion, partly by the base itself:
            the photographs show best what was learned.
        blocks: held-out block of every frame of `new`.
    """
    gain, error, count = paired_gain(new, blocks)
    at_least = gain - _quantile(count) * error if math.isfinite(error) else -math.inf
    losses = paired_losses(*old)
    worst = max(losses, key=lambda name: losses[name].bound)
    lost = losses[worst]
    if not at_least > 0:
        said = "unknown, too few blocks" if math.isinf(error) else f"{error:.4f}"
        reason = f"kept: gain {gain:+.4f} over {count} held-out blocks is not above 0 with certainty (error {said})"
    elif math.isinf(lost.bound):
        reason = f"kept: {lost.frames} labelled frames say something about {worst} of the old data, too few to judge by"
    elif lost.bound > margin:
        reason = (
            f"kept: the old data may lose {lost.bound:.4f} of {worst} ({lost.mean:+.4f} ± {lost.error:.4f} over "
            f"{lost.frames} labelled frames), at most {margin:g} is allowed"
        )
    else:
        reason = (
            f"promoted: gain {gain:+.4f} ± {error:.4f} over {count} held-out blocks, the old data lose at most "
            f"{max(0.0, lost.bound):.4f} of {worst} (allowed {margin:g})"
        )
    return Verdict(reason.startswith("promoted"), reason, gain, error, at_least, count, losses, margin)
