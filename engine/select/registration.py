"""Flow loss in the paper's own form: the motion inside a mask comes from registering it by colour.

Each mask of the newest frame is shifted onto each mask of the previous one where their colours agree
best; c_ia is what that shift leaves unexplained of the measured flow, and

    L_F(j, k) = (1/Z) [ sum_{x outside k} |F(x) - mean of F outside k|_1 + sum_{i in k} min_{a in j} c_ia ]

Flow outside is without the camera's motion, as in the other form; inside, a shift contains the camera's
motion, so the full flow is compared. A mask with nothing to register to counts as background.
Slower by orders of magnitude than the explained form; kept to be compared with it.
"""

import numpy as np

from engine.select.compiled import compiled, lowest_bit
from engine.select.flow_loss import ResidualFlow, background_flows
from engine.select.masks import PackedMasks
from engine.select.render import Rendered

_RADIUS_PX = 3
_MISMATCH = 64.0
"""Gray levels charged for a pixel shifted out of the other mask: a clear mismatch, not an impossible one."""


def registered_flow_loss(
    flow: ResidualFlow,
    full_flow: np.ndarray,
    masks: PackedMasks,
    combinations: list[tuple[int, ...]],
    rendered: Rendered,
    image: np.ndarray,
    past_masks: PackedMasks,
    past_combinations: list[tuple[int, ...]],
    past_image: np.ndarray,
) -> np.ndarray:
    """L_F for every pair of combinations.

    Args:
        flow: residual flow of the newest frame.
        full_flow: float [2, h, w], backward flow with the camera's motion, working-grid pixels.
        image, past_image: uint8 [h, w, 3] on the working grid.

    Returns:
        float64 [J, K].
    """
    values = np.ascontiguousarray(full_flow, np.float32).reshape(2, -1)
    costs = np.full((len(masks.words), len(past_masks.words)), np.nan)
    for i in sorted({member for members in combinations for member in members}):
        for a in sorted({member for members in past_combinations for member in members}):
            dx, dy = register(masks.words[i], image, past_masks.words[a], past_image)
            costs[i, a] = _deviation_inside(masks.words[i], values, dx, dy)
    outside = background_flows(flow, rendered)
    table = np.empty((len(past_combinations), len(combinations)))
    for k, members in enumerate(combinations):
        mean_x, mean_y = outside[k]
        unselected = _deviation_inside(~rendered.unions[k], flow.values, mean_x, mean_y)
        for j, past_members in enumerate(past_combinations):
            table[j, k] = unselected
            for i in members:
                if past_members:
                    table[j, k] += costs[i, list(past_members)].min()
                else:
                    table[j, k] += _deviation_inside(masks.words[i], flow.values, mean_x, mean_y)
    return table / flow.deviation


def register(
    words: np.ndarray, image: np.ndarray, past_words: np.ndarray, past_image: np.ndarray
) -> tuple[float, float]:
    """Shift (dx, dy) in pixels that moves a mask onto one of the previous frame, by colour.

    Whole pixels around the difference of the centroids, then a parabola per axis.

    Args:
        words, past_words: int64 [W], the two masks as bit sets.
        image, past_image: uint8 [h, w, 3].
    """
    h, w = image.shape[:2]
    pixels, past_pixels = _pixels(words, h * w), _pixels(past_words, h * w)
    if len(pixels) == 0 or len(past_pixels) == 0:
        return 0.0, 0.0
    centre_x = round(float((past_pixels % w).mean() - (pixels % w).mean()))
    centre_y = round(float((past_pixels // w).mean() - (pixels // w).mean()))
    cost = _colour_costs(
        pixels,
        image.reshape(-1, 3),
        past_words,
        past_image.reshape(-1, 3),
        w,
        h,
        centre_x,
        centre_y,
        _RADIUS_PX,
    )
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    dx = centre_x + int(column) - _RADIUS_PX + _vertex(cost[row], int(column))
    dy = centre_y + int(row) - _RADIUS_PX + _vertex(cost[:, column], int(row))
    return dx, dy


def _vertex(cost: np.ndarray, position: int) -> float:
    """Offset in (-0.5 ... 0.5) of the parabola through a minimum and its neighbours; 0 at the border."""
    if position in (0, len(cost) - 1):
        return 0.0
    before, at, after = cost[position - 1 : position + 2].tolist()
    curvature = before - 2.0 * at + after
    return 0.0 if curvature <= 0.0 else float(0.5 * (before - after) / curvature)


def _pixels(words: np.ndarray, count: int) -> np.ndarray:
    """Row-major indices of the set bits."""
    bits = np.unpackbits(words.astype("<i8").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits[:count])


@compiled
def _colour_costs(
    pixels: np.ndarray,
    image: np.ndarray,
    past_words: np.ndarray,
    past_image: np.ndarray,
    w: int,
    h: int,
    centre_x: int,
    centre_y: int,
    radius: int,
) -> np.ndarray:
    """Mean colour difference for every shift of the search window, rows dy, columns dx."""
    out = np.zeros((2 * radius + 1, 2 * radius + 1))
    for row in range(2 * radius + 1):
        for column in range(2 * radius + 1):
            total = 0.0
            for pixel in pixels:
                y = pixel // w + centre_y + row - radius
                x = pixel % w + centre_x + column - radius
                past = y * w + x
                if x < 0 or x >= w or y < 0 or y >= h or not past_words[past >> 6] & (1 << (past & 63)):
                    total += _MISMATCH
                    continue
                for c in range(3):
                    total += abs(float(image[pixel, c]) - float(past_image[past, c])) / 3.0
            out[row, column] = total / len(pixels)
    return out


@compiled
def _deviation_inside(words: np.ndarray, values: np.ndarray, dx: float, dy: float) -> float:
    """Sum over the pixels of a bit set of the L1 distance between values [2, P] and (dx, dy)."""
    total = 0.0
    pixels = values.shape[1]
    for i in range(len(words)):
        word = words[i]
        while word != 0:
            x = 64 * i + lowest_bit(word)
            word &= word - 1
            if x < pixels:
                total += abs(values[0, x] - dx) + abs(values[1, x] - dy)
    return total
