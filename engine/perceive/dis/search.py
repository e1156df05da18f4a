"""Where each patch of a picture is in another one: inverse search by gradient descent, on a sparse grid.

Kroeger, Timofte, Dai, Van Gool, "Fast Optical Flow using Dense Inverse Search" (ECCV 2016), Sec. 2.1, with the
mean-normalised patches and the spatial propagation that OpenCV added.
"""

import numba
import numpy as np

from engine.perceive.dis.lanes import PATCH_PX, difference_sums, gradient_sums

STRIDE_PX = 3
"""Between neighbouring patches; the medium preset of OpenCV."""

BORDER_PX = 16
"""By which the picture searched is continued, so that patches may look beyond its edge."""

_STRIPES = 8
"""Bands of rows between which nothing propagates, as OpenCV has them for its threads."""

_STEPS = 6
"""Of gradient descent, per sweep: half the preset's converge as well, consecutive frames being close."""

_FAR = np.float32(1e10)
_SINGULAR = np.float32(0.001)
_PIXELS = np.float32(PATCH_PX * PATCH_PX)
_FLOAT_BYTES = 4


def patch_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a picture of `size` = (h, w)."""
    return 1 + (size[0] - PATCH_PX) // STRIDE_PX, 1 + (size[1] - PATCH_PX) // STRIDE_PX


@numba.njit(cache=True, nogil=True, error_model="numpy")
def structure(gradient_x, gradient_y, out):  # type: ignore[no-untyped-def]
    """Sums over each patch of I_x^2, I_y^2, I_x I_y, I_x and I_y.

    Args:
        gradient_x, gradient_y: float32 [h, w], whole numbers.
        out: float32 [5, rows, columns], written.
    """
    h, w = gradient_x.shape
    _, rows, columns = out.shape
    across = np.empty((5, h, columns), np.float32)
    products = np.empty((5, w), np.float32)
    for y in range(h):
        for x in range(w):
            gx, gy = gradient_x[y, x], gradient_y[y, x]
            products[0, x] = gx * gx
            products[1, x] = gy * gy
            products[2, x] = gx * gy
            products[3, x] = gx
            products[4, x] = gy
        for kind in range(5):
            for column in range(columns):
                # Whole numbers below 2^24: exact in any order.
                total = np.float32(0)
                for k in range(PATCH_PX):
                    total += products[kind, column * STRIDE_PX + k]
                across[kind, y, column] = total
    total = np.empty(columns, np.float32)
    for kind in range(5):
        total[:] = 0
        for y in range(PATCH_PX):
            for column in range(columns):
                total[column] += across[kind, y, column]
        out[kind, 0] = total
        for y in range(PATCH_PX, h):
            for column in range(columns):
                total[column] += across[kind, y, column] - across[kind, y - PATCH_PX, column]
            row, rest = divmod(y - PATCH_PX + 1, STRIDE_PX)
            if rest == 0 and row < rows:
                out[kind, row] = total


@numba.njit(cache=True, nogil=True, inline="always")
def _held(place, most):  # type: ignore[no-untyped-def]
    """`place` no farther out than a patch may look; also for what is no number, so that nothing else is read."""
    least = np.float32(BORDER_PX - PATCH_PX + 1)
    if not place >= least:
        return least
    return min(place, most)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _place(y, x, flow_x, flow_y, h, w):  # type: ignore[no-untyped-def]
    """Row and column in the continued picture that a patch at (y, x) moves to, whole, and the four bilinear weights."""
    row = _held(np.float32(y) + flow_y + np.float32(BORDER_PX), np.float32(BORDER_PX + h - 1))
    column = _held(np.float32(x) + flow_x + np.float32(BORDER_PX), np.float32(BORDER_PX + w - 1))
    top, left = int(row), int(column)
    down, right = row - np.float32(top), column - np.float32(left)
    up, back = np.float32(top + 1) - row, np.float32(left + 1) - column
    return top, left, up * back, up * right, down * back, down * right


@numba.njit(cache=True, nogil=True, error_model="numpy")
def search(image, other, gradient_x, gradient_y, tensor, dense_x, dense_y, sparse_x, sparse_y):  # type: ignore[no-untyped-def]
    """Flow of every patch.

    Args:
        image: float32 [h, w], whose patches are looked for.
        other: float32 [h + 2 BORDER_PX, w + 2 BORDER_PX], the picture searched, continued.
        gradient_x, gradient_y: float32 [h, w] of `image`.
        tensor: float32 [5, rows, columns] of `structure`.
        dense_x, dense_y: float32 [h, w], where to start.
        sparse_x, sparse_y: float32 [rows, columns], written.
    """
    rows = sparse_x.shape[0]
    stripe_rows = (rows + _STRIPES - 1) // _STRIPES
    for stripe in range(_STRIPES):
        top, bottom = min(stripe * stripe_rows, rows), min((stripe + 1) * stripe_rows, rows)
        half = PATCH_PX // 2
        for row in range(top, bottom):
            for column in range(sparse_x.shape[1]):
                sparse_x[row, column] = dense_x[row * STRIDE_PX + half, column * STRIDE_PX + half]
                sparse_y[row, column] = dense_y[row * STRIDE_PX + half, column * STRIDE_PX + half]
        _sweep(image, other, gradient_x, gradient_y, tensor, sparse_x, sparse_y, top, bottom, 1)
        _sweep(image, other, gradient_x, gradient_y, tensor, sparse_x, sparse_y, top, bottom, -1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sweep(image, other, gradient_x, gradient_y, tensor, sparse_x, sparse_y, top, bottom, way):  # type: ignore[no-untyped-def]
    """Each patch starts from the best of its own flow and those of the neighbours just visited, and descends."""
    h, w = image.shape
    columns = sparse_x.shape[1]
    stride, other_stride = image.shape[1], other.shape[1]
    start_row = top if way > 0 else bottom - 1
    start_column = 0 if way > 0 else columns - 1
    for r in range(bottom - top):
        row = start_row + way * r
        y = row * STRIDE_PX
        for c in range(columns):
            column = start_column + way * c
            x = column * STRIDE_PX
            at = (y * stride + x) * _FLOAT_BYTES
            patch = image.ctypes.data + at
            best_x, best_y = sparse_x[row, column], sparse_y[row, column]
            best = _FAR
            for candidate in range(3):
                if candidate == 0:
                    try_x, try_y = best_x, best_y
                elif candidate == 1:
                    if c == 0:
                        continue
                    try_x, try_y = sparse_x[row, column - way], sparse_y[row, column - way]
                else:
                    if r == 0:
                        continue
                    try_x, try_y = sparse_x[row - way, column], sparse_y[row - way, column]
                if candidate > 0 and try_x == best_x and try_y == best_y:
                    continue
                i, j, w00, w01, w10, w11 = _place(y, x, try_x, try_y, h, w)
                found = other.ctypes.data + (i * other_stride + j) * _FLOAT_BYTES
                total, squares = difference_sums(patch, found, stride, other_stride, w00, w01, w10, w11)
                cost = squares - total * total / _PIXELS
                if candidate == 0 or cost < best:
                    best, best_x, best_y = cost, try_x, try_y
            xx, yy, xy = tensor[0, row, column], tensor[1, row, column], tensor[2, row, column]
            mean_x, mean_y = tensor[3, row, column], tensor[4, row, column]
            determinant = xx * yy - xy * xy
            if abs(determinant) < _SINGULAR:
                determinant = _SINGULAR
            a, b, d = yy / determinant, -xy / determinant, xx / determinant
            now_x, now_y = best_x, best_y
            before = _FAR
            for _ in range(_STEPS):
                i, j, w00, w01, w10, w11 = _place(y, x, now_x, now_y, h, w)
                found = other.ctypes.data + (i * other_stride + j) * _FLOAT_BYTES
                total, squares, along_x, along_y = gradient_sums(
                    patch, found, stride, other_stride, w00, w01, w10, w11,
                    gradient_x.ctypes.data + at, gradient_y.ctypes.data + at,
                )  # fmt: skip
                cost = squares - total * total / _PIXELS
                slope_x = along_x - total * mean_x / _PIXELS
                slope_y = along_y - total * mean_y / _PIXELS
                now_x -= a * slope_x + b * slope_y
                now_y -= b * slope_x + d * slope_y
                if cost >= before:
                    break
                before = cost
            moved_x, moved_y = np.float64(now_x - best_x), np.float64(now_y - best_y)
            # Farther than its own size a patch has found something else.
            if np.sqrt(moved_x * moved_x + moved_y * moved_y) <= PATCH_PX:
                best_x, best_y = now_x, now_y
            sparse_x[row, column] = best_x
            sparse_y[row, column] = best_y
