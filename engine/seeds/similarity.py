"""How alike two embeddings are (Eq. 1), and how far every pixel is from a set of them."""

import numpy as np

from engine.select.compiled import compiled_sum

FARTHEST = np.float32(50.0)
"""Squared distance beyond which R is zero to any use; exp would overflow further on."""

_BLOCK = 512
_TILE = 4


def similarity(squared: np.ndarray) -> np.ndarray:
    """R = 2 / (1 + exp d^2) in (0, 1] of squared distances, same shape, float32 (Eq. 1)."""
    squared = np.asarray(squared, np.float32)
    out: np.ndarray = np.float32(2.0) / (np.float32(1.0) + np.exp(np.minimum(squared, FARTHEST)))
    return out


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances float32 [A, B] of the rows of a [A, E] and b [B, E]."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    out = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - np.float32(2.0) * (a @ b.T)
    # Rounding may take the distance of a row to itself below zero.
    clipped: np.ndarray = np.maximum(out, np.float32(0.0))
    return clipped


def nearest_distances(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distance of every pixel to the nearest row; what Eq. 13 and Eq. 14 need, R being monotone.

    Args:
        embedding: float32 [E, P].
        rows: float32 [n, E]; n may be 0.

    Returns:
        float32 [P], at most `FARTHEST`, which is also the answer without rows.
    """
    embedding = np.ascontiguousarray(embedding, np.float32)
    rows = np.ascontiguousarray(rows, np.float32)
    channels = -embedding.shape[0] % _TILE
    if channels:
        embedding = np.concatenate([embedding, np.zeros((channels, embedding.shape[1]), np.float32)])
    norms = np.full(len(rows) + -len(rows) % _TILE, np.inf, np.float32)
    norms[: len(rows)] = (rows * rows).sum(axis=1)
    # Rows that only fill up the last tile are infinitely far from everything.
    twice = np.zeros((len(norms), len(embedding)), np.float32)
    twice[: len(rows), : rows.shape[1]] = np.float32(-2.0) * rows
    return _nearest(embedding, twice, norms, FARTHEST)


@compiled_sum
def _nearest(embedding: np.ndarray, twice: np.ndarray, norms: np.ndarray, farthest: np.float32) -> np.ndarray:
    """min over rows m of |f|^2 + |m|^2 - 2 f m, four rows and four channels at once over a block of pixels."""
    channels, pixels = embedding.shape
    out = np.empty(pixels, np.float32)
    totals = np.empty((4, _BLOCK), np.float32)
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        best = out[start : start + size]
        best[:] = np.float32(np.inf)
        t, u, v, w = totals[0, :size], totals[1, :size], totals[2, :size], totals[3, :size]
        for r in range(0, len(twice), 4):
            t[:] = norms[r]
            u[:] = norms[r + 1]
            v[:] = norms[r + 2]
            w[:] = norms[r + 3]
            for e in range(0, channels, 4):
                a0, a1, a2, a3 = twice[r, e], twice[r, e + 1], twice[r, e + 2], twice[r, e + 3]
                b0, b1, b2, b3 = twice[r + 1, e], twice[r + 1, e + 1], twice[r + 1, e + 2], twice[r + 1, e + 3]
                c0, c1, c2, c3 = twice[r + 2, e], twice[r + 2, e + 1], twice[r + 2, e + 2], twice[r + 2, e + 3]
                d0, d1, d2, d3 = twice[r + 3, e], twice[r + 3, e + 1], twice[r + 3, e + 2], twice[r + 3, e + 3]
                f = embedding[e, start : start + size]
                g = embedding[e + 1, start : start + size]
                h = embedding[e + 2, start : start + size]
                k = embedding[e + 3, start : start + size]
                for i in range(size):
                    t[i] += a0 * f[i] + a1 * g[i] + a2 * h[i] + a3 * k[i]
                    u[i] += b0 * f[i] + b1 * g[i] + b2 * h[i] + b3 * k[i]
                    v[i] += c0 * f[i] + c1 * g[i] + c2 * h[i] + c3 * k[i]
                    w[i] += d0 * f[i] + d1 * g[i] + d2 * h[i] + d3 * k[i]
            for i in range(size):
                best[i] = min(min(best[i], min(t[i], u[i])), min(v[i], w[i]))
        for e in range(channels):
            f = embedding[e, start : start + size]
            for i in range(size):
                best[i] += f[i] * f[i]
        for i in range(size):
            best[i] = min(max(best[i], np.float32(0.0)), farthest)
    return out
