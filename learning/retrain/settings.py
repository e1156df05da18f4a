"""What one retraining is asked to do."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import UsageError

PARTS = ("trunk", "proposals", "background", "embedding")
HEADS = PARTS[1:]

CROP, FULL = (192, 320), (256, 448)
"""Heights and widths trained on, in turn: crops for variety, whole frames because the engine feeds those."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result besides the data; the reasons stand beside the defaults.

    Attributes:
        parts: which of `PARTS` learn; the others keep their weights.
    """

    parts: tuple[str, ...] = PARTS
    steps: int = 200  # with this rate and share what was measured, see docs/learning.md
    batch: int = 8
    rate: float = 3e-5  # a fortieth of the base's peak: at 1e-4 real foreground was lost, see docs/learning.md
    share: float = 0.25  # of a batch that are selections, the rest replay
    margin: float = 0.005  # half a point of precision or of IoU that the old data may lose, error included
    frames: int = 2000  # selections learned from, most useful first: half a megabyte each on the disk
    held_frames: int = 240  # frames of the store that judge
    old_frames: int = 1000  # labelled frames that judge: a loss of 0.01 hid in the noise of 100, see docs/learning.md
    move: float = 0.5  # of the way from the base's weights to the fine-tuned ones: the loss on old data grows faster
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise UsageError(f"--parts {unknown[0]} is unknown: use {', '.join(PARTS)}, heads or all")
        for name, low in (
            ("steps", 1),
            ("batch", 1),
            ("frames", 1),
            ("held_frames", 2),
            ("old_frames", 2),
            ("seed", 0),
        ):
            if getattr(self, name) < low:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {low} or more")
        if not 0 < self.rate < math.inf:
            raise UsageError(f"--rate {self.rate}: must be above 0")
        if not 0 < self.share <= 1:
            raise UsageError(f"--share {self.share}: must be above 0 and at most 1")
        if not 0 < self.move <= 1:
            raise UsageError(f"--move {self.move}: must be above 0 and at most 1")
        if not 0 <= self.margin < 1:
            raise UsageError(f"--margin {self.margin}: must be in [0, 1)")

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "parts": list(self.parts)}


def resolve_parts(names: Sequence[str] | None, replay: bool) -> tuple[str, ...]:
    """Parts that learn, in the order of `PARTS`.

    Args:
        names: `PARTS`, "heads" or "all"; None: everything with replay, the heads without, since a trunk that sees
            nothing but the selections forgets what the others rest on.
    """
    if names is None:
        return PARTS if replay else HEADS
    wanted: set[str] = set()
    for name in names:
        wanted |= set({"all": PARTS, "heads": HEADS}.get(name, (name,)))
    return (*(part for part in PARTS if part in wanted), *sorted(wanted - set(PARTS)))
