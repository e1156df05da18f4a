"""Flow loss (Eq. 4): how much of the measured flow two consecutive selections leave unexplained.

The paper compares the flow of frame t with a synthetic one: the mean flow outside all masks, and inside
them the motion that the masks of both frames imply. Here flow points backward from the newest frame, so
the same comparison is made on the pixels of frame t+1 and needs no second flow field and no later frame:

    L_F(j, k) = (1/Z) [ sum_x r_k(x) - sum_{x in S_jk} (r_k(x) - in(x))+ ]
    r_k(x) = |F(x) - mean of F outside combination k|_1        F: flow without the camera's motion
    in(x)  = |F(x) - mean of F over the mask of k that owns x|_1
    S_jk   = pixels of combination k whose content was in combination j
    Z      = sum_x |F(x) - mean of F|_1, the loss of selecting nothing

Z makes the loss of selecting nothing 1, whatever the speed; raw pixels would drown the other terms. Where
Z is below a fraction of a pixel on average, the flow is the estimator's noise and the loss is 0 for all.
"""

from dataclasses import dataclass

import numpy as np

from engine.select.compiled import compiled, compiled_sum, lowest_bit
from engine.select.masks import PackedMasks, sums_inside
from engine.select.render import Rendered


@dataclass(frozen=True, slots=True)
class ResidualFlow:
    """Residual flow of one frame and what selecting nothing would cost.

    Attributes:
        values: float32 [2, h*w], working-grid pixels.
        mean: float64 [2].
        deviation: Z, the sum of absolute deviations from the mean.
    """

    values: np.ndarray
    mean: np.ndarray
    deviation: float

    def is_still(self, min_flow_px: float) -> bool:
        """True when there is too little motion to say anything about objects."""
        return self.deviation <= 0.0 or self.deviation < min_flow_px * self.values.shape[1]


def residual_flow(residual: np.ndarray) -> ResidualFlow:
    """Prepare float [2, h, w] residual flow."""
    values = np.ascontiguousarray(residual, np.float32).reshape(2, -1)
    mean = values.mean(axis=1, dtype=np.float64)
    return ResidualFlow(values, mean, float(absolute_deviation(values, mean[0], mean[1])))


@compiled_sum
def absolute_deviation(values: np.ndarray, mean_x: float, mean_y: float) -> float:
    """Sum over pixels of the L1 distance between values [2, P] and one flow vector."""
    x, y = np.float32(mean_x), np.float32(mean_y)
    total = 0.0
    for i in range(values.shape[1]):
        total += abs(values[0, i] - x) + abs(values[1, i] - y)
    return total


def background_flows(flow: ResidualFlow, rendered: Rendered) -> np.ndarray:
    """Mean flow outside each combination, float64 [K, 2]; of everything where nothing is outside."""
    pixels = flow.values.shape[1]
    outside = (pixels - rendered.areas)[:, None]
    rest = flow.mean * pixels - sums_inside(rendered.unions, flow.values)
    return np.where(outside > 0, rest / np.maximum(outside, 1), flow.mean)


def explained_flow_loss(
    flow: ResidualFlow, masks: PackedMasks, rendered: Rendered, past: np.ndarray, past_count: int
) -> np.ndarray:
    """L_F for every pair of combinations.

    Args:
        flow: residual flow of the newest frame.
        masks: its candidates.
        rendered: its kept combinations.
        past: int64 [h*w], bit j where the content of the pixel was in combination j of the previous frame.
        past_count: number J of combinations of the previous frame.

    Returns:
        float64 [J, K], about 0 ... 1.
    """
    mask_flows = sums_inside(masks.words, flow.values) / np.maximum(masks.areas, 1)[:, None]
    outside = background_flows(flow, rendered)
    table = _explained(flow.values, outside, mask_flows, rendered.unions, rendered.owners, past, past_count)
    return table / flow.deviation


@compiled
def _explained(
    values: np.ndarray,
    outside: np.ndarray,
    mask_flows: np.ndarray,
    unions: np.ndarray,
    owners: np.ndarray,
    past: np.ndarray,
    past_count: int,
) -> np.ndarray:
    count, n_words = unions.shape
    table = np.empty((past_count, count))
    gains = np.empty(past_count)
    for k in range(count):
        out_x, out_y = outside[k]
        gains[:] = 0.0
        # Neighbouring pixels mostly have the same past: collect a run before spreading it.
        run, run_gain = 0, 0.0
        for i in range(n_words):
            word = unions[k, i]
            while word != 0:
                x = 64 * i + lowest_bit(word)
                word &= word - 1
                if past[x] == 0:
                    continue
                own = owners[k, x]
                gain = (
                    abs(values[0, x] - out_x)
                    + abs(values[1, x] - out_y)
                    - abs(values[0, x] - mask_flows[own, 0])
                    - abs(values[1, x] - mask_flows[own, 1])
                )
                if gain <= 0.0:
                    continue
                if past[x] != run:
                    _spread(run, run_gain, gains)
                    run, run_gain = past[x], 0.0
                run_gain += gain
        _spread(run, run_gain, gains)
        total = absolute_deviation(values, out_x, out_y)
        for j in range(past_count):
            table[j, k] = total - gains[j]
    return table


@compiled
def _spread(choice: int, gain: float, gains: np.ndarray) -> None:
    """Add `gain` to every combination whose bit is set in `choice`."""
    while choice != 0:
        gains[lowest_bit(choice)] += gain
        choice &= choice - 1
