"""What MuG's training does and for how long."""

import math
from dataclasses import dataclass

from engine.errors import UsageError
from learning.mug.losses import WEIGHTS
from learning.mug.tracking import PATCHES

GRANULARITIES = tuple(WEIGHTS)


@dataclass(frozen=True)
class Plan:
    """What is trained and for how long.

    Attributes:
        minutes: wall clock of the whole run; the learning rate follows it.
        steps: number of steps instead of minutes, None for the clock.
        rounds: of bootstrapping; each learns from maps of the round before.
        granularities: terms of the loss that are switched on.
        batch: videos per step (N).
        rate: peak of the learning rate of every round.
        patches: what tracked patches are cut out of, one of `PATCHES`.
        frames_first: share of every round in which the frame granularity learns alone, from single frames.
    """

    minutes: float = 45.0
    steps: int | None = None
    rounds: int = 2
    granularities: tuple[str, ...] = GRANULARITIES
    batch: int = 4
    rate: float = 1.5e-3
    patches: str = PATCHES[0]
    frames_first: float = 0.7

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UsageError: the first value that is out of range.
        """
        for name, value in (("minutes", self.minutes), ("rate", self.rate)):
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} {value}: must be above 0")
        if self.steps is not None and self.steps < self.rounds:
            raise UsageError(f"--steps {self.steps}: must be at least the number of rounds, {self.rounds}")
        if not 0 <= self.frames_first < 1:
            raise UsageError(f"--frames-first {self.frames_first:g}: must be at least 0 and below 1")
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}: must be at least 1")
        if self.batch < 2:
            raise UsageError(f"--batch {self.batch}: must be at least 2, videos are told apart from one another")
        if unknown := [name for name in self.granularities if name not in GRANULARITIES]:
            raise UsageError(f"--without {unknown[0]}: unknown; choose of {', '.join(GRANULARITIES)}")
