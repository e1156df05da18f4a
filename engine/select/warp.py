"""The past brought to the newest frame along the backward flow."""

import numpy as np

from engine.select.compiled import compiled


def source_pixels(flow: np.ndarray) -> np.ndarray:
    """Where the content of each pixel was in the previous frame.

    Args:
        flow: float32 [2, h, w], backward flow (dx, dy) in working-grid pixels.

    Returns:
        int32 [h*w], row-major index of the nearest previous pixel, -1 where it lies outside the frame.
    """
    return _source_pixels(np.ascontiguousarray(flow))


@compiled
def _source_pixels(flow: np.ndarray) -> np.ndarray:
    _, h, w = flow.shape
    out = np.full(h * w, -1, np.int32)
    for y in range(h):
        for x in range(w):
            sx = np.floor(x + flow[0, y, x] + 0.5)
            sy = np.floor(y + flow[1, y, x] + 0.5)
            if sx >= 0 and sx < w and sy >= 0 and sy < h:
                out[y * w + x] = int(sy) * w + int(sx)
    return out


@compiled
def gather(choices: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Per-pixel choices int64 [P] of the previous frame, moved along `source`; nothing where it is -1."""
    out = np.zeros(len(source), np.int64)
    for x in range(len(source)):
        if source[x] >= 0:
            out[x] = choices[source[x]]
    return out


@compiled
def as_unions(choices: np.ndarray, count: int) -> np.ndarray:
    """Per-pixel choices int64 [P] as one bit set per combination: int64 [count, W]."""
    n_words = max(1, (len(choices) + 63) >> 6)
    out = np.zeros((count, n_words), np.int64)
    for x in range(len(choices)):
        choice = choices[x]
        if choice != 0:
            bit = 1 << (x & 63)
            for row in range(count):
                if choice & (1 << row):
                    out[row, x >> 6] |= bit
    return out


@compiled
def inside(source: np.ndarray) -> np.ndarray:
    """Bit set int64 [W] of the pixels whose source lies inside the previous frame."""
    out = np.zeros(max(1, (len(source) + 63) >> 6), np.int64)
    for x in range(len(source)):
        if source[x] >= 0:
            out[x >> 6] |= 1 << (x & 63)
    return out
