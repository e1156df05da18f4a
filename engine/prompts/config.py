"""Every knob of the one-shot mode, its default and the reason for it."""

from dataclasses import dataclass

from engine.errors import UsageError


@dataclass(frozen=True)
class PromptsConfig:
    """How a prompted object is carried from frame to frame, when it counts as lost and how it is found again.

    Raises:
        UsageError: a value outside its range; names the field, the value and the range.
    """

    prompts: int = 8  # objects at once, each costs its share of the frame
    recent_frames: int = 8  # a prompt may point at a frame this old: a robot answers late

    embedding_scale: float = 1.0  # per unit of the network's embedding
    colour_scale: float = 0.1  # per 8-bit step of Lab
    nearness: float = 0.05  # per squared pixel away from where the flow says

    memory: int = 5  # frames remembered besides the previous one; the prompt's own always stays
    memory_every: int = 10  # frames between candidates for the memory

    def __post_init__(self) -> None:
        for name in ("prompts", "recent_frames", "memory", "memory_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("embedding_scale", "colour_scale", "nearness"):
            self._require(name, 0.0 <= getattr(self, name) < float("inf"), ">= 0 and finite")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise UsageError(f"prompts {name}={getattr(self, name)}: must be {allowed}")
