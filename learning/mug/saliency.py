"""Initial knowledge of fore- and background without labels: ranking on a graph of superpixels (Yang et al. 2013).

What resembles the border of the picture, through chains of similar neighbours, is background. Regions are ranked by
their relation to each of the four borders, then again by their relation to what the first ranking calls foreground.
"""

import cv2
import numba
import numpy as np

from learning.mug.superpixels import superpixels

_ALPHA = 0.99
"""How far a rank spreads over the graph."""

_SIGMA_SQUARED = 0.1
"""Colour distance over which the weight of an edge falls to 1/e."""

_FLAT = 0.02
"""Spread of colours below which a picture shows one colour; the ranking would call its middle foreground."""


def saliency(image: np.ndarray, count: int = 200) -> np.ndarray:
    """How much every pixel belongs to what stands out from the borders.

    Args:
        image: uint8 [h, w, 3] BGR.
        count: superpixels.

    Returns:
        float32 [h, w] in [0, 1]; all zero for a picture of one colour.
    """
    labels, colours = superpixels(image, count)
    ranks = rank_regions(colours, _neighbours(labels, len(colours)), border_regions(labels))
    return ranks.astype(np.float32)[labels]


def binary_saliency(values: np.ndarray) -> np.ndarray:
    """Foreground, bool [h, w], of a saliency map float32 [h, w]: what lies above Otsu's threshold."""
    eight_bit = np.clip(values * 255, 0, 255).astype(np.uint8)
    if eight_bit.max() == eight_bit.min():
        return np.zeros(values.shape, bool)
    threshold, _ = cv2.threshold(eight_bit, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return eight_bit > threshold


def border_regions(labels: np.ndarray) -> list[np.ndarray]:
    """Regions at the top, bottom, left and right of int32 [h, w]: four arrays of labels."""
    return [np.unique(edge) for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1])]


def rank_regions(colours: np.ndarray, neighbours: np.ndarray, borders: list[np.ndarray]) -> np.ndarray:
    """Saliency of every region.

    f = (D - alpha W)^-1 y with w_ij = exp(-|c_i - c_j| / sigma^2) between regions at most two steps apart and between
    regions at the border; the diagonal of the inverse is zero, so that a query does not vote for itself (Eqs. 3-8 of
    the paper on ranking).

    Args:
        colours: float32 [n, 3] in about 0 … 1.
        neighbours: bool [n, n], touching regions, symmetric.
        borders: regions of each of the four borders.

    Returns:
        float64 [n] in [0, 1].
    """
    n = len(colours)
    near = neighbours.astype(np.float32)
    edges = neighbours | (near @ near > 0)
    rim = np.zeros(n, bool)
    rim[np.concatenate(borders)] = True
    edges |= rim[:, None] & rim[None]
    np.fill_diagonal(edges, False)
    distance = np.linalg.norm(colours[:, None].astype(np.float64) - colours[None], axis=2)
    weights = np.where(edges, np.exp(-distance / _SIGMA_SQUARED), 0.0)
    degree = weights.sum(axis=1)
    # A region without neighbours is a picture of one region: it stands out from nothing.
    if n < 2 or not np.all(degree > 0) or np.ptp(colours, axis=0).max() < _FLAT:
        return np.zeros(n)
    spread = np.linalg.inv(np.diag(degree) - _ALPHA * weights)
    np.fill_diagonal(spread, 0.0)
    first = np.ones(n)
    for border in borders:
        query = np.zeros(n)
        query[border] = 1.0
        first *= 1.0 - _unit(spread @ query)
    return _unit(spread @ (first >= first.mean()))


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high - low > 1e-9 else np.zeros_like(values)


@numba.njit(cache=True, nogil=True)
def _neighbours(labels, n):  # type: ignore[no-untyped-def]
    """Which regions of int32 [h, w] touch: bool [n, n], symmetric."""
    h, w = labels.shape
    touching = np.zeros((n, n), np.bool_)
    for y in range(h):
        for x in range(w):
            a = labels[y, x]
            if x + 1 < w and labels[y, x + 1] != a:
                touching[a, labels[y, x + 1]] = touching[labels[y, x + 1], a] = True
            if y + 1 < h and labels[y + 1, x] != a:
                touching[a, labels[y + 1, x]] = touching[labels[y + 1, x], a] = True
    return touching
