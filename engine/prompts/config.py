"""Every knob of the one-shot mode, its default and the reason for it."""

from dataclasses import dataclass

from engine.errors import UsageError


@dataclass(frozen=True)
class PromptsConfig:
    """How a prompted object is carried from frame to frame, when it counts as lost and how it is found again.

    Raises:
        UsageError: a value outside its range; names the field, the value and the range.
    """

    objects: int = 8  # at once; each costs its share of every frame
    recent_frames: int = 6  # a prompt may point at a frame this old, for a robot answers late; 2 MB each

    embedding_scale: float = 1.0  # per unit of the network's embedding; best of 0 ... 6 on the built-in scene
    colour_scale: float = 0.2  # per 8-bit step of Lab, so that five steps are one unit
    nearness: float = 0.05  # per squared pixel away from where the flow says
    radius_px: int = 4  # working-grid pixels the flow may be wrong by, and the object may grow in a frame
    memory: int = 6  # frames remembered, the prompt's own among them and never dropped
    memory_every: int = 5  # frames between additions; neighbouring frames say the same
    agreement: float = 0.6  # overlap from which a proposal is taken for the same object
    proposal_share: float = 0.2  # its say about the border; more is worse at once, none drifts over seconds

    lost_share: float = 0.15  # of its usual area; what is left below this is no object
    recall_likeness: float = 0.72  # colours this alike, seen elsewhere, are the object that was lost
    near_bonus: float = 0.08  # taken off that where it was last seen
    recall_shares: tuple[float, float] = (0.25, 3.0)  # of its usual area, for what may be the object again
    pace: float = 0.1  # image widths per frame; nobody comes back from farther away

    def __post_init__(self) -> None:
        for name in ("objects", "recent_frames", "radius_px", "memory", "memory_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("embedding_scale", "colour_scale", "nearness"):
            self._require(name, 0.0 <= getattr(self, name) < float("inf"), ">= 0 and finite")
        for name in ("agreement", "proposal_share", "lost_share", "recall_likeness", "near_bonus"):
            self._require(name, 0.0 <= getattr(self, name) <= 1.0, "0 ... 1")
        low, high = self.recall_shares if len(self.recall_shares) == 2 else (1.0, 0.0)
        self._require("recall_shares", 0.0 < low < high, "two values above 0, ascending")
        self._require("pace", self.pace > 0.0, "above 0")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise UsageError(f"prompts {name}={getattr(self, name)}: must be {allowed}")
