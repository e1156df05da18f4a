"""Every knob of the seeds, its default and the reason for it."""

from dataclasses import dataclass

from engine.errors import UsageError


@dataclass(frozen=True)
class SeedsConfig:
    """How seeds are found and ranked, what is remembered, and which couplings to the selection are on.

    Raises:
        UsageError: a value outside its range; names the field, the value and the range.
    """

    enabled: bool = True  # False: percepts pass through untouched and nothing is remembered
    learn_memory: bool = True  # coupling 1: committed masks teach the memories
    correct_background: bool = True  # coupling 2: the memories correct the network's background map
    grow: bool = True  # coupling 3: regions no proposal covers become candidates
    guard: bool = True  # coupling 4: no learning from guesses and bad frames
    propagate: bool = True  # the last final mask of each object, moved along the flow, is a candidate
    refine: bool = False  # edge-aware filter of P_FG: on the working grid it costs small objects more than it mends

    look_frames: int = 4  # seeds are looked for in every so many frames: a quarter of the time, as good as every one
    seeds: int = 100  # N_S of the paper
    window_px: int = 0  # side of the window whose minimum is a candidate; 0: from the grid (5 at 64 rows, 9 at 480)
    background_share: int = 5  # N_BG = N_S / 5 of the paper
    min_motion_px: float = 0.25  # working-grid pixels; slower relative motion is noise of the flow estimator
    members: int = 10  # W: embeddings a seed track remembers
    track_lag: int = 2  # frames the track's dynamic programme may revise; only its newest seed is used
    track_rate: float = 0.1  # gamma of F <- (1 - gamma) F + gamma O M: about ten frames
    region_share: float = 0.5  # alpha of the paper
    background_objectness: float = 0.3  # O_BG of Eq. 12
    background_motion: float = 0.01  # M_BG of Eq. 12

    correction: float = 0.5  # beta of b <- (1 - beta) b + beta (1 - P_FG); with more the memories hear themselves
    correct_known_only: bool = False  # scale beta by the larger similarity: unknown surfaces say nothing
    object_capacity: int = 12  # embeddings per object; twice as many cost time and bring nothing
    background_capacity: int = 48  # embeddings of the background, which is more varied
    objects: int = 64  # remembered at once; those unseen longest leave
    active_objects: int = 6  # most recently seen ones that speak for the foreground; bounds the time per frame
    active_frames: int = 60  # an object unseen for longer no longer marks foreground, but is still recognised
    refresh_frames: int = 1  # k: learn from every k-th frame; 0: from the first one only
    max_loss_bound: float = 0.02  # nats per pixel a forced commit may have cost and still teach
    protect_similarity: float = 0.8  # seeds this close to a known object never become background
    flash_difference: float = 26.0  # gray levels between frames; as the perceiver's cut

    grown: int = 4  # candidates grown per frame
    grown_score: float = 0.4  # share of its foreground probability a grown mask gets: nothing else supports it
    grown_foreground: float = 0.5  # a region below this is not worth growing
    carried_score: float = 0.8  # share of its score a carried mask keeps: a fresh proposal of the same goes first
    covering_score: float = 0.2  # proposals below this do not count as covering a region
    min_area: float = 0.001  # fraction of the image; smaller candidates are specks
    max_area: float = 0.5  # fraction of the image; larger ones are the background
    duplicate_iou: float = 0.9  # an extra candidate this close to a proposal adds nothing

    def __post_init__(self) -> None:
        for name in ("seeds", "background_share", "members", "object_capacity", "background_capacity", "objects"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("active_objects", "active_frames", "look_frames"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("refresh_frames", "grown", "track_lag", "max_loss_bound"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("window_px", self.window_px == 0 or self.window_px % 2 == 1, "odd, or 0 for automatic")
        for name in ("min_motion_px", "flash_difference"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("track_rate", "max_area", "duplicate_iou"):
            self._require(name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        for name in (
            "region_share",
            "background_objectness",
            "background_motion",
            "correction",
            "protect_similarity",
            "grown_score",
            "grown_foreground",
            "carried_score",
            "covering_score",
            "min_area",
        ):
            self._require(name, 0 <= getattr(self, name) <= 1, "0 ... 1")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise UsageError(f"seeds {name}={getattr(self, name)}: must be {allowed}")

    def window(self, rows: int) -> int:
        """Side n of the candidate window on a grid of `rows` rows: odd, at least 3 (Sec. 4.2, scaled)."""
        if self.window_px:
            return self.window_px
        # Through (64, 5) and (480, 9).
        return max(3, 2 * round((5 + 4 * (rows - 64) / 416 - 1) / 2) + 1)
