"""Borders that follow the image: an edge-aware filter for live use, a dense random field for offline use."""

import cv2
import numpy as np

from engine.select.compiled import compiled


def _box(values: np.ndarray, radius_px: int) -> np.ndarray:
    side = 2 * radius_px + 1
    return cv2.boxFilter(values, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)


def _local_lines(
    guide: np.ndarray, source: np.ndarray, radius_px: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel the averaged slope and offset of source ~ a guide + b over the windows that contain it."""
    mean_guide, mean_source = _box(guide, radius_px), _box(source, radius_px)
    # Rounding may make the variance of a flat window negative.
    variance = np.maximum(_box(guide * guide, radius_px) - mean_guide * mean_guide, 0.0)
    covariance = _box(guide * source, radius_px) - mean_guide * mean_source
    slope = covariance / (variance + np.float32(epsilon))
    offset = mean_source - slope * mean_guide
    return _box(slope, radius_px), _box(offset, radius_px)


def guided_filter(guide: np.ndarray, source: np.ndarray, radius_px: int = 4, epsilon: float = 1e-3) -> np.ndarray:
    """Smooth `source` except where `guide` has an edge (guided filter: local linear models, six box filters).

    Args:
        guide: float32 [h, w] in [0, 1], the image's gray values.
        source: float32 [h, w] in [0, 1].
        radius_px: half side of the window; its border is mirrored.
        epsilon: variance of the guide below which a window counts as flat.

    Returns:
        float32 [h, w] in [0, 1].
    """
    slope, offset = _local_lines(guide, source, radius_px, epsilon)
    out: np.ndarray = np.clip(slope * guide + offset, 0.0, 1.0)
    return out


def gray(image: np.ndarray) -> np.ndarray:
    """Gray values float32 [H, W] in [0, 1] of uint8 [H, W, 3] BGR."""
    scaled: np.ndarray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) * np.float32(1.0 / 255.0)
    return scaled


def refine_at_frame(
    image: np.ndarray, probability: np.ndarray, radius_px: int = 4, epsilon: float = 1e-3
) -> np.ndarray:
    """A map of the working grid at frame resolution, its borders moved to the image's (Sec. 3.4, live form).

    The local models are fitted on the working grid and applied to the full image, so that the cost per frame
    pixel is one multiplication and one addition whatever the radius.

    Args:
        image: uint8 [H, W, 3] BGR.
        probability: float32 [h, w] in [0, 1].
        radius_px, epsilon: as in `guided_filter`, on the working grid.

    Returns:
        float32 [H, W] in [0, 1].
    """
    h, w = probability.shape
    guide = gray(image)
    small = cv2.resize(guide, (w, h), interpolation=cv2.INTER_AREA)
    slope, offset = _local_lines(small, probability.astype(np.float32), radius_px, epsilon)
    size = (image.shape[1], image.shape[0])
    slope = cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR)
    offset = cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR)
    out: np.ndarray = np.clip(slope * guide + offset, 0.0, 1.0)
    return out


def dense_crf(
    image: np.ndarray,
    probability: np.ndarray,
    iterations: int = 5,
    radius_px: int = 8,
    position_px: float = 6.0,
    colour: float = 10.0,
    appearance_weight: float = 4.0,
    smoothness_px: float = 3.0,
    smoothness_weight: float = 3.0,
) -> np.ndarray:
    """Mean field of a two-label random field with appearance and smoothness kernels (Sec. 3.4, offline form).

    The unary is -log P. Pairs couple through appearance_weight exp(-|x|^2 / 2 position^2 - |I|^2 / 2 colour^2) +
    smoothness_weight exp(-|x|^2 / 2 smoothness^2), Potts. An approximation: both kernels are cut at `radius_px`
    and each pixel's weights are divided by their sum per kernel, so that borders of the image count like its middle.

    Args:
        image: uint8 [h, w, 3].
        probability: float32 [h, w], foreground.
        iterations: mean-field updates, all pixels at once.
        radius_px, position_px, smoothness_px: pixels.
        colour: gray levels.

    Returns:
        float32 [h, w] in [0, 1].
    """
    unary = np.clip(probability.astype(np.float32), 1e-4, 1.0 - 1e-4)
    log_odds = np.log(unary / (1.0 - unary))
    belief = unary
    pixels = np.ascontiguousarray(image).astype(np.float32)
    for _ in range(iterations):
        message = _messages(
            pixels, belief, radius_px, position_px, colour, appearance_weight, smoothness_px, smoothness_weight
        )
        belief = (1.0 / (1.0 + np.exp(-(log_odds + message)))).astype(np.float32)
    return belief


@compiled
def _messages(
    image: np.ndarray,
    belief: np.ndarray,
    radius: int,
    position: float,
    colour: float,
    appearance_weight: float,
    smoothness: float,
    smoothness_weight: float,
) -> np.ndarray:
    """Log-odds each pixel hears from its neighbours."""
    h, w = belief.shape
    out = np.zeros((h, w), np.float32)
    for y in range(h):
        for x in range(w):
            appearance_sum, appearance_norm, smooth_sum, smooth_norm = 0.0, 1e-12, 0.0, 1e-12
            for v in range(max(0, y - radius), min(h, y + radius + 1)):
                for u in range(max(0, x - radius), min(w, x + radius + 1)):
                    if v == y and u == x:
                        continue
                    apart = float((v - y) ** 2 + (u - x) ** 2)
                    contrast = 0.0
                    for c in range(3):
                        contrast += (image[v, u, c] - image[y, x, c]) ** 2
                    opinion = 2.0 * belief[v, u] - 1.0
                    a = np.exp(-apart / (2.0 * position**2) - contrast / (2.0 * colour**2))
                    s = np.exp(-apart / (2.0 * smoothness**2))
                    appearance_sum += a * opinion
                    appearance_norm += a
                    smooth_sum += s * opinion
                    smooth_norm += s
            out[y, x] = (
                appearance_weight * appearance_sum / appearance_norm + smoothness_weight * smooth_sum / smooth_norm
            )
    return out
