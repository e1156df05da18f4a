"""From the flow of patches to that of pixels: a mean in which those count most that fit the pixel."""

import numba
import numpy as np

from engine.perceive.dis.lanes import PATCH_PX, blend_row
from engine.perceive.dis.search import STRIDE_PX

_EDGE = np.float32(0.001)
_FLOAT_BYTES = 4


@numba.njit(cache=True, nogil=True, inline="always")
def _held(place, last):  # type: ignore[no-untyped-def]
    """`place` between 0 and `last`; 0 for what is no number, so that nothing is read outside of the picture."""
    if not place >= 0:
        return np.float32(0)
    return min(place, last)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def blend(image, other, sparse_x, sparse_y, dense_x, dense_y):  # type: ignore[no-untyped-def]
    """Dense flow, weights 1 / max(1, |difference of gray levels|) (Kroeger et al., Eq. 3).

    Args:
        image, other: float32 [h, w].
        sparse_x, sparse_y: float32 [rows, columns].
        dense_x, dense_y: float32 [h, w], written.
    """
    h, w = image.shape
    rows, columns = sparse_x.shape
    sums = np.zeros((3, h, w), np.float32)
    plane = h * w
    last_x, last_y = np.float32(w - 1) - _EDGE, np.float32(h - 1) - _EDGE
    one = np.float32(1)
    for row in range(rows):
        top = row * STRIDE_PX
        bottom = h if row == rows - 1 else top + PATCH_PX
        for column in range(columns):
            left = column * STRIDE_PX
            right = w if column == columns - 1 else left + PATCH_PX
            flow_x, flow_y = sparse_x[row, column], sparse_y[row, column]
            begin, end = np.float32(left) + flow_x, np.float32(left + PATCH_PX - 1) + flow_x
            cell = int(begin)
            # Held inside the picture, or rounded over to the next pixel, the eight are no longer side by side.
            whole = begin >= 0 and end <= last_x and int(end) == cell + PATCH_PX - 1
            for y in range(top, bottom):
                place_y = _held(np.float32(y) + flow_y, last_y)
                i = int(place_y)
                share_y, rest_y = place_y - np.float32(i), np.float32(i + 1) - place_y
                if whole:
                    blend_row(
                        image.ctypes.data + (y * w + left) * _FLOAT_BYTES,
                        other.ctypes.data + (i * w + cell) * _FLOAT_BYTES,
                        w,
                        np.float32(left),
                        np.float32(cell),
                        flow_x,
                        flow_y,
                        share_y,
                        rest_y,
                        sums.ctypes.data + (y * w + left) * _FLOAT_BYTES,
                        plane,
                    )
                for x in range(left + PATCH_PX if whole else left, right):
                    place_x = _held(np.float32(x) + flow_x, last_x)
                    j = int(place_x)
                    share_x, rest_x = place_x - np.float32(j), np.float32(j + 1) - place_x
                    value = share_x * share_y * other[i + 1, j + 1] + rest_x * share_y * other[i + 1, j]
                    value = value + share_x * rest_y * other[i, j + 1] + rest_x * rest_y * other[i, j]
                    weight = one / max(one, abs(value - image[y, x]))
                    sums[0, y, x] += weight * flow_x
                    sums[1, y, x] += weight * flow_y
                    sums[2, y, x] += weight
    for y in range(h):
        for x in range(w):
            dense_x[y, x] = sums[0, y, x] / sums[2, y, x]
            dense_y[y, x] = sums[1, y, x] / sums[2, y, x]
