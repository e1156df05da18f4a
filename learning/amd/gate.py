"""Whether what was learned online may go to the engine: usable pairs only, and a fall of the held-out distance."""

from dataclasses import dataclass

import cv2
import numpy as np

MIN_CONTRAST = 6.0
"""Standard deviation in gray levels below which a frame is black, white or a covered lens."""

MIN_DIFFERENCE, MAX_DIFFERENCE = 0.75, 60.0
"""Mean gray levels between the frames of a pair: below nothing moves (a frame that repeats), above is a cut."""

GRAIN = 0.35
"""Share of the difference that must be left in frames four times smaller: of independent grain a quarter is, of things
that moved more. A standstill in bad light is a standstill: a warp could only learn to blur the grain."""

MIN_LIKENESS = 0.5
"""Correlation of the coarse frames of a pair; frames of noise have none, and a warp only blurs them."""

MIN_EXPLAINED = 0.01
"""Share of the unmoved frames' distance that motion must explain: where nothing moves, a blur explains a little."""

_COARSE = (16, 9)
_SAME = 0.75
"""Mean gray levels between coarse pairs below which one repeats another."""


def coarse(pair: np.ndarray) -> np.ndarray:
    """A pair uint8 [2, 3, h, w] as gray thumbnails float32 [2, 9, 16]."""
    gray = pair.astype(np.float32).mean(axis=1)
    return np.stack([cv2.resize(frame, _COARSE, interpolation=cv2.INTER_AREA) for frame in gray])


def defect(pair: np.ndarray) -> str | None:
    """Why a pair uint8 [2, 3, h, w] teaches nothing: "blank", "still", "cut" or "noise"; None for a usable one."""
    if min(float(frame.std()) for frame in pair) < MIN_CONTRAST:
        return "blank"
    gray = pair.astype(np.float32).mean(axis=1)
    size = (gray.shape[2] // 4, gray.shape[1] // 4)
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in gray]
    difference, left = float(np.abs(gray[0] - gray[1]).mean()), float(np.abs(small[0] - small[1]).mean())
    if difference > MAX_DIFFERENCE:
        return "cut"
    if left < max(MIN_DIFFERENCE, GRAIN * difference):
        return "still"
    first, second = (frame.ravel() - frame.mean() for frame in coarse(pair))
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return "noise" if length == 0 or float(first @ second) / length < MIN_LIKENESS else None


class PairBuffer:
    """The newest usable pairs, none twice: a recording in a loop fills it once and no more.

    Args:
        capacity: pairs kept; the oldest leave.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pairs: list[np.ndarray] = []
        self._coarse: list[np.ndarray] = []
        self.refused: dict[str, int] = {}

    def add(self, pair: np.ndarray) -> bool:
        """Keep a pair uint8 [2, 3, h, w] unless it is of no use; whether it was kept."""
        reason = defect(pair)
        small = coarse(pair)
        if reason is None and any(float(np.abs(small - known).mean()) < _SAME for known in self._coarse):
            reason = "repeated"
        if reason is not None:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return False
        self._pairs.append(pair)
        self._coarse.append(small)
        del self._pairs[: -self._capacity], self._coarse[: -self._capacity]
        return True

    def __len__(self) -> int:
        return len(self._pairs)

    def pairs(self) -> np.ndarray:
        """uint8 [N, 2, 3, h, w], oldest first."""
        return np.stack(self._pairs)


@dataclass(frozen=True)
class Verdict:
    """Held-out photometric distances of what was learned against what runs.

    Attributes:
        promote: whether to swap.
        gain: mean fall of the distance, as a share of what runs now.
        error: standard error of that share.
        reason: one line.
    """

    promote: bool
    gain: float
    error: float
    reason: str


def judge(
    running: np.ndarray,
    learned: np.ndarray,
    unmoved: np.ndarray,
    min_gain: float = 0.005,
    min_explained: float = MIN_EXPLAINED,
) -> Verdict:
    """Promote when the distance falls on held-out pairs, by more than chance, and motion explains them at all.

    Args:
        running, learned, unmoved: distance of every held-out pair, float [N], rebuilt by the running network, by the
            learned one, and without any motion.
        min_gain: least fall, as a share.
        min_explained: share of `unmoved` that motion must explain.
    """
    if len(running) < 2:
        return Verdict(False, 0.0, 0.0, f"{len(running)} held-out pairs, at least 2 are needed")
    if not all(np.isfinite(values).all() for values in (running, learned, unmoved)):
        return Verdict(False, 0.0, 0.0, "a distance is not finite")
    whole = float(running.mean())
    falls = (running - learned) / max(whole, 1e-9)
    gain, error = float(falls.mean()), float(falls.std(ddof=1) / np.sqrt(len(falls)))
    if learned.mean() > (1 - min_explained) * unmoved.mean():
        return Verdict(False, gain, error, "rebuilding is hardly better than leaving the frames unmoved")
    if gain < min_gain:
        return Verdict(False, gain, error, f"held-out distance fell by {gain:.2%}, less than {min_gain:.2%}")
    if gain <= 2 * error:
        return Verdict(False, gain, error, f"held-out distance fell by {gain:.2%} ± {error:.2%}: may be chance")
    return Verdict(True, gain, error, f"held-out distance fell by {gain:.2%} ± {error:.2%}")
