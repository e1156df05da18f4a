"""Numba with types: one decorator for every compiled loop, and the two bit instructions numba lacks.

Words are int64 on purpose: numba turns mixed uint64/int64 arithmetic into floating point.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic as _intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

_FINITE = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered into vector lanes; NaN and infinity keep their meaning."""


def compiled(function: Function) -> Function:
    """`function` as native code: cached on disk, releasing the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def compiled_sum(function: Function) -> Function:
    """Like `compiled`, for loops whose sums may be reordered."""
    return cast(Function, numba.njit(cache=True, nogil=True, fastmath=_FINITE)(function))


def intrinsic(function: Function) -> Callable[[int], int]:
    """A function that emits its own instruction."""
    return cast(Callable[[int], int], _intrinsic(function))


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:
    """Number of set bits of an int64."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), emit


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Position of the lowest set bit of an int64 that is not zero."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit
