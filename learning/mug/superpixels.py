"""Superpixels: k-means of colour and place with a bounded reach (SLIC, Achanta et al. 2012)."""

import cv2
import numba
import numpy as np

_ITERATIONS = 6
_COMPACTNESS = 20.0
"""Weight of place against colour, in units of Lab distance per grid step."""


def superpixels(image: np.ndarray, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Split an image into about `count` connected regions of even colour.

    Args:
        image: uint8 [h, w, 3] BGR.
        count: regions wanted; the regular grid they start from and the last merging change it somewhat.

    Returns:
        labels int32 [h, w], 0 … n - 1 without gaps, and the mean Lab colour of every region float32 [n, 3],
        each channel divided so that it lies in about 0 … 1.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_BGR2LAB)
    h, w = lab.shape[:2]
    step_px = max(2.0, (h * w / count) ** 0.5)
    ys = (np.arange(max(1, round(h / step_px))) + 0.5) * (h / max(1, round(h / step_px)))
    xs = (np.arange(max(1, round(w / step_px))) + 0.5) * (w / max(1, round(w / step_px)))
    y, x = (axis.ravel() for axis in np.meshgrid(ys, xs, indexing="ij"))
    start = lab[y.astype(np.int64), x.astype(np.int64)]
    centres = np.column_stack([start, y, x]).astype(np.float32)
    labels = _cluster(lab, centres, step_px, np.float32((_COMPACTNESS / step_px) ** 2), _ITERATIONS)
    labels = _connected(labels, max(1, int(step_px * step_px / 4)))
    n = int(labels.max()) + 1
    size = np.bincount(labels.ravel(), minlength=n).astype(np.float32)
    unit = (lab - np.float32([0, -128, -128])) / np.float32([100, 255, 255])
    colours = [np.bincount(labels.ravel(), unit[..., c].ravel(), minlength=n) / size for c in range(3)]
    return labels, np.column_stack(colours).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _cluster(lab, centres, step_px, place, iterations):  # type: ignore[no-untyped-def]
    """Nearest centre of every pixel among those within one grid step in x and y, re-estimated `iterations` times."""
    h, w = lab.shape[:2]
    n = len(centres)
    labels = np.zeros((h, w), np.int32)
    best = np.empty((h, w), np.float32)
    reach = int(np.ceil(step_px)) + 1
    for _ in range(iterations):
        best[:] = np.inf
        for k in range(n):
            cy, cx = centres[k, 3], centres[k, 4]
            for y in range(max(0, int(cy) - reach), min(h, int(cy) + reach + 1)):
                for x in range(max(0, int(cx) - reach), min(w, int(cx) + reach + 1)):
                    distance = place * ((y - cy) ** 2 + (x - cx) ** 2)
                    for c in range(3):
                        distance += (lab[y, x, c] - centres[k, c]) ** 2
                    if distance < best[y, x]:
                        best[y, x] = distance
                        labels[y, x] = k
        total = np.zeros((n, 5), np.float64)
        size = np.zeros(n, np.int64)
        for y in range(h):
            for x in range(w):
                k = labels[y, x]
                for c in range(3):
                    total[k, c] += lab[y, x, c]
                total[k, 3] += y
                total[k, 4] += x
                size[k] += 1
        for k in range(n):
            if size[k] > 0:
                for c in range(5):
                    centres[k, c] = total[k, c] / size[k]
    return labels


@numba.njit(cache=True, nogil=True)
def _connected(labels, least_px):  # type: ignore[no-untyped-def]
    """Number connected pieces in reading order; a piece smaller than `least_px` joins the piece above or left of it."""
    h, w = labels.shape
    out = np.full((h, w), -1, np.int32)
    queue = np.empty((h * w, 2), np.int32)
    count = 0
    for y0 in range(h):
        for x0 in range(w):
            if out[y0, x0] >= 0:
                continue
            neighbour = -1
            if x0 > 0:
                neighbour = out[y0, x0 - 1]
            elif y0 > 0:
                neighbour = out[y0 - 1, x0]
            out[y0, x0] = count
            queue[0, 0], queue[0, 1] = y0, x0
            head, tail = 0, 1
            while head < tail:
                y, x = queue[head, 0], queue[head, 1]
                head += 1
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    v, u = y + dy, x + dx
                    if 0 <= v < h and 0 <= u < w and out[v, u] < 0 and labels[v, u] == labels[y0, x0]:
                        out[v, u] = count
                        queue[tail, 0], queue[tail, 1] = v, u
                        tail += 1
            if tail < least_px and neighbour >= 0:
                for i in range(tail):
                    out[queue[i, 0], queue[i, 1]] = neighbour
            else:
                count += 1
    return out
