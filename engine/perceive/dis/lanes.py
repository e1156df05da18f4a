"""Arithmetic on rows of eight pixels, which compiled loops call: the order of every sum is fixed.

Left to itself a compiler either keeps sums in the order written, one pixel at a time, or reorders them as it likes.
These keep the order of OpenCV's four-lane code, so that both flows agree to the last bit, and use the eight lanes of
today's processors for the rest; where a processor has four, LLVM makes two of each.

Arrays are handed over as addresses of float32 elements; nothing is checked.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

PATCH_PX = 8
"""Side of a patch: one row fills the lanes."""

_FLOAT = ir.FloatType()
_ROW = ir.VectorType(_FLOAT, PATCH_PX)
_INT32 = ir.IntType(32)
_BYTES = 4


def _constant(values: Sequence[float]) -> Any:
    return ir.Constant(ir.VectorType(_FLOAT, len(values)), [float(value) for value in values])


def _row_pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(_ROW))


def _load(builder: Any, address: Any) -> Any:
    return builder.load(_row_pointer(builder, address), align=_BYTES)


def _store(builder: Any, row: Any, address: Any) -> None:
    builder.store(row, _row_pointer(builder, address), align=_BYTES)


def _offset(builder: Any, address: Any, elements: int) -> Any:
    return builder.add(address, ir.Constant(address.type, elements * _BYTES))


def _below(builder: Any, address: Any, stride: Any) -> Any:
    """Address one image row further down; `stride` in elements."""
    return builder.add(address, builder.mul(stride, ir.Constant(stride.type, _BYTES)))


def _everywhere(builder: Any, value: Any) -> Any:
    """A scalar in all lanes."""
    one = builder.insert_element(ir.Constant(_ROW, ir.Undefined), value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, ir.Constant(_ROW, ir.Undefined), _mask([0] * PATCH_PX))


def _mask(lanes: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes))


def _halves(builder: Any, row: Any) -> Any:
    """Left plus right half of a row, four lanes."""
    nothing = ir.Constant(_ROW, ir.Undefined)
    left = builder.shuffle_vector(row, nothing, _mask(range(4)))
    right = builder.shuffle_vector(row, nothing, _mask(range(4, 8)))
    return builder.fadd(left, right)


def _total(builder: Any, four: Any) -> Any:
    """(a + c) + (b + d) of four lanes."""
    a, b, c, d = (builder.extract_element(four, ir.Constant(_INT32, lane)) for lane in range(4))
    return builder.fadd(builder.fadd(a, c), builder.fadd(b, d))


def _differences(builder: Any, arguments: Sequence[Any]) -> list[Any]:
    """The eight rows of: another picture at a fraction of a pixel, minus the patch."""
    patch, other, patch_stride, other_stride, *scalars = arguments
    w00, w01, w10, w11 = (_everywhere(builder, scalar) for scalar in scalars)
    rows = []
    here, right = _load(builder, other), _load(builder, _offset(builder, other, 1))
    for _ in range(PATCH_PX):
        other = _below(builder, other, other_stride)
        below, below_right = _load(builder, other), _load(builder, _offset(builder, other, 1))
        value = builder.fadd(builder.fmul(w00, here), builder.fmul(w01, right))
        value = builder.fadd(value, builder.fmul(w10, below))
        value = builder.fadd(value, builder.fmul(w11, below_right))
        rows.append(builder.fsub(value, _load(builder, patch)))
        patch = _below(builder, patch, patch_stride)
        here, right = below, below_right
    return rows


def _sum_rows(builder: Any, rows: Sequence[Any]) -> Any:
    total = _constant([0.0] * 4)
    for row in rows:
        total = builder.fadd(total, _halves(builder, row))
    return _total(builder, total)


_WHERE = (types.intp, types.intp, types.intp, types.intp)
_WEIGHTS = (types.float32,) * 4


@intrinsic
def difference_sums(typing_context, patch, other, patch_stride, other_stride, w00, w01, w10, w11):  # type: ignore[no-untyped-def]
    """Sums over a patch of d and of d^2, d = w00 J(x, y) + w01 J(x+1, y) + w10 J(x, y+1) + w11 J(x+1, y+1) - I.

    Args:
        patch, other: addresses of the first pixel of the patch in I, and of where it is looked for in J.
        patch_stride, other_stride: elements per row of the two pictures.
        w00, w01, w10, w11: bilinear weights.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _differences(builder, arguments)
        sums = [_sum_rows(builder, rows), _sum_rows(builder, [builder.fmul(row, row) for row in rows])]
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(types.float32, 2)(*_WHERE, *_WEIGHTS), emit


@intrinsic
def gradient_sums(typing_context, patch, other, patch_stride, other_stride, w00, w01, w10, w11, gradient_x, gradient_y):  # type: ignore[no-untyped-def]
    """Sums over a patch of d, d^2, d I_x and d I_y; arguments as of `difference_sums`, and

    Args:
        gradient_x, gradient_y: addresses of I_x and I_y at the first pixel of the patch, with the stride of I.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *where, slope_x, slope_y = arguments
        stride = where[2]
        rows = _differences(builder, where)
        sums = [_sum_rows(builder, rows), _sum_rows(builder, [builder.fmul(row, row) for row in rows])]
        for slope in (slope_x, slope_y):
            products = []
            for row in rows:
                products.append(builder.fmul(row, _load(builder, slope)))
                slope = _below(builder, slope, stride)
            sums.append(_sum_rows(builder, products))
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(types.float32, 4)(*_WHERE, *_WEIGHTS, types.intp, types.intp), emit


@intrinsic
def blend_row(typing_context, pixels, other, other_stride, column, cell, flow_x, flow_y, share_y, rest_y, sums, plane):  # type: ignore[no-untyped-def]
    """Add one row of a patch to the weighted sums that become the dense flow.

    Args:
        pixels: address of the row's first pixel in I.
        other: address of the pixel of J at or left above where the flow points from there.
        other_stride: elements per row of J.
        column, cell: float32 columns of those two pixels.
        flow_x, flow_y: float32 flow of the patch.
        share_y, rest_y: float32 weights of the lower and the upper row of J.
        sums: address, at the first pixel, of three planes: weight x flow_x, weight x flow_y, weight.
        plane: elements per plane.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pixels, other, stride, column, cell, flow_x, flow_y, share_y, rest_y, sums, plane = arguments
        lanes, one = _constant(range(PATCH_PX)), _constant([1.0] * PATCH_PX)
        move_x, move_y = _everywhere(builder, flow_x), _everywhere(builder, flow_y)
        place = builder.fadd(builder.fadd(_everywhere(builder, column), lanes), move_x)
        left = builder.fadd(_everywhere(builder, cell), lanes)
        share_x = builder.fsub(place, left)
        rest_x = builder.fsub(builder.fadd(left, one), place)
        lower, upper = _everywhere(builder, share_y), _everywhere(builder, rest_y)
        below = _below(builder, other, stride)
        corners = (
            (share_x, lower, _offset(builder, below, 1)),
            (rest_x, lower, below),
            (share_x, upper, _offset(builder, other, 1)),
            (rest_x, upper, other),
        )
        value = None
        for across, down, address in corners:
            term = builder.fmul(builder.fmul(across, down), _load(builder, address))
            value = term if value is None else builder.fadd(value, term)
        difference = builder.fsub(value, _load(builder, pixels))
        size = one
        for either in (difference, builder.fneg(difference)):
            size = builder.select(builder.fcmp_ordered(">", either, size), either, size)
        weight = builder.fdiv(one, size)
        for factor in (move_x, move_y, None):
            part = weight if factor is None else builder.fmul(weight, factor)
            _store(builder, builder.fadd(_load(builder, sums), part), sums)
            sums = _below(builder, sums, plane)
        return context.get_dummy_value()

    numbers = (types.float32,) * 6
    return types.void(types.intp, types.intp, types.intp, *numbers, types.intp, types.intp), emit
