"""Consistency loss (Eq. 5): minus the IoU of what consecutive frames select.

Two frames that both select nothing agree fully (ours: -1, the paper leaves it open). With 0 instead, any
speck that stays would beat the empty scene by the whole loss, in every frame.

Warped (ours): the past is first moved along the backward flow, so that a moving camera is no change, and
pixels whose content was outside the previous frame are left out, because nothing can be consistent there.
"""

import numpy as np

from engine.select.compiled import compiled, popcount
from engine.select.warp import as_unions, gather, inside


def consistency_loss(
    past_choices: np.ndarray,
    past_count: int,
    unions: np.ndarray,
    source: np.ndarray | None,
    both_empty: float = -1.0,
) -> np.ndarray:
    """Eq. 5 for every pair of combinations.

    Args:
        past_choices: int64 [h*w], bit j where combination j of the previous frame selects the pixel.
        past_count: number J of combinations of the previous frame.
        unions: int64 [K, W], selected pixels of each combination of the newest frame.
        source: int32 [h*w] from `source_pixels`; None compares pixel by pixel without motion.
        both_empty: the loss where both select nothing.

    Returns:
        float64 [J, K] in [-1, 0].
    """
    if source is None:
        everywhere = np.full(unions.shape[1], -1, np.int64)
        return _table(as_unions(past_choices, past_count), unions, everywhere, both_empty)
    return _table(as_unions(gather(past_choices, source), past_count), unions, inside(source), both_empty)


@compiled
def _table(past: np.ndarray, unions: np.ndarray, counted: np.ndarray, both_empty: float) -> np.ndarray:
    out = np.zeros((len(past), len(unions)))
    for j in range(len(past)):
        for k in range(len(unions)):
            shared, either, uncounted = 0, 0, 0
            for i in range(len(counted)):
                a = past[j, i] & counted[i]
                b = unions[k, i] & counted[i]
                shared += popcount(a & b)
                either += popcount(a | b)
                uncounted += popcount(unions[k, i] & ~counted[i])
            if either > 0:
                out[j, k] = -shared / either
            elif uncounted == 0:
                out[j, k] = both_empty
    return out
