"""Background loss (Eq. 3): cross entropy between the background map and what a combination leaves unselected.

For masks that do not overlap it is a constant plus one weight per mask, which is what makes the K best
combinations of a frame an independent-set problem. Kept combinations are scored once more on their union,
because a tolerated overlap would otherwise count twice.
"""

from dataclasses import dataclass

import numpy as np

from engine.select.masks import PackedMasks, sums_inside


@dataclass(frozen=True, slots=True)
class BackgroundLoss:
    """The loss of one frame.

    Attributes:
        logit: float32 [h*w], log-odds of background; what selecting a pixel costs, times the pixel count.
        empty: L0, the loss of selecting nothing, in nats per pixel.
        weights: float64 [N], what each mask adds; negative where the network sees foreground.
        mean_logits: float64 [N], mean log-odds under each mask (0 for a mask without pixels).
    """

    logit: np.ndarray
    empty: float
    weights: np.ndarray
    mean_logits: np.ndarray

    def of_unions(self, unions: np.ndarray) -> np.ndarray:
        """Eq. 3 of selected regions given as bit sets [K, W]: float64 [K]."""
        return self.empty + sums_inside(unions, self.logit[None])[:, 0] / max(1, len(self.logit))


def background_loss(background: np.ndarray, masks: PackedMasks, clamp: float) -> BackgroundLoss:
    """Eq. 3 split over the masks.

    Args:
        background: float [h, w] in [0, 1], probability of background.
        clamp: probabilities are moved into [clamp, 1 - clamp].
    """
    probability = np.clip(background.astype(np.float32, copy=False).ravel(), clamp, 1.0 - clamp)
    log_background = np.log(probability)
    logit = log_background - np.log(np.float32(1.0) - probability)
    empty = -float(log_background.mean(dtype=np.float64)) if len(logit) else 0.0
    sums = sums_inside(masks.words, logit[None])[:, 0]
    return BackgroundLoss(logit, empty, sums / max(1, len(logit)), sums / np.maximum(masks.areas, 1))
