"""Every knob of the selection, its default and the reason for it."""

from dataclasses import dataclass
from typing import Literal

from engine.errors import UsageError


@dataclass(frozen=True)
class SelectionConfig:
    """Which masks of a frame are objects, and how long the decision may wait for the future.

    Raises:
        UsageError: a value outside its range; names the field, the value and the range.
    """

    lag: int = 5  # frames; the gap to the whole-video optimum is nearly closed there
    combinations: int = 10  # K of the paper; more are near-copies of these
    lambda_background: float = 1.0  # Eq. 2
    lambda_flow: float = 1.0  # Eq. 2; the flow loss is normalised, so it cannot drown the others
    lambda_consistency: float = 0.5  # Eq. 2; divided by the gap when frames were dropped
    lambda_score: float = 2.0  # ours, 0 is the paper: else the foreground map cut at 1/2 always wins
    score_reference: float = 0.4  # score that speaks neither for nor against a mask
    conflict_tolerance: float = 0.05  # of the smaller mask: predicted masks of touching objects bleed
    diversity_iou: float = 0.95  # above this two combinations are one answer and K buys nothing
    paper_mode: bool = False  # strict: no overlap at all, near-copies kept, scores ignored
    flow_form: Literal["explained", "registered"] = "explained"  # registered: by colour, slow
    warped: bool = True  # compare with the past moved along the flow, or a pan looks like a change
    min_flow_px: float = 0.25  # working-grid pixels; weaker motion is noise of the flow estimator
    background_clamp: float = 0.01  # an unclamped logit lets one confident blob drown everything
    node_budget: int = 4_000  # search states per enumeration, about 10 ms: a tangle must not stall a robot

    def __post_init__(self) -> None:
        self._require("lag", self.lag >= 0, ">= 0")
        self._require("combinations", 1 <= self.combinations <= 64, "1 ... 64 (one bit each)")
        for name in ("lambda_background", "lambda_flow", "lambda_consistency", "lambda_score", "min_flow_px"):
            self._require(name, 0.0 <= getattr(self, name) < float("inf"), ">= 0 and finite")
        self._require("score_reference", 0.0 < self.score_reference < 1.0, "above 0, below 1")
        self._require("conflict_tolerance", 0.0 <= self.conflict_tolerance < 1.0, "0 ... 1")
        self._require("diversity_iou", 0.0 < self.diversity_iou <= 1.0, "above 0, at most 1")
        self._require("flow_form", self.flow_form in ("explained", "registered"), "explained or registered")
        self._require("background_clamp", 0.0 < self.background_clamp < 0.5, "above 0, below 0.5")
        self._require("node_budget", self.node_budget >= 1, ">= 1")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise UsageError(f"selection {name}={getattr(self, name)}: must be {allowed}")

    @property
    def score_weight(self) -> float:
        """Weight of the detector's scores; the paper gives them none."""
        return 0.0 if self.paper_mode else self.lambda_score

    @property
    def overlap_allowed(self) -> float:
        """Overlap above which two masks exclude each other, as a fraction of the smaller one."""
        return 0.0 if self.paper_mode else self.conflict_tolerance

    @property
    def near_copy_iou(self) -> float:
        """Union overlap above which a combination is left out; 1 keeps every one."""
        return 1.0 if self.paper_mode else self.diversity_iou

    @property
    def both_empty(self) -> float:
        """Consistency loss of two frames that both select nothing; the paper's examples always hold something."""
        return 0.0 if self.paper_mode else -1.0
