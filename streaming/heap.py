"""The memory of a process that runs for weeks: what grows in it although nothing is lost."""

import ctypes
import gc
import os

ARENAS = 4
"""Of the C library's allocator. Each thread is given one, and what a thread needed at its busiest stays with its arena:
without a limit each new connection's thread may be the first to fill another one, of eight per core."""

_M_ARENA_MAX = -8
"""`mallopt` parameter of glibc, `malloc.h`."""

_TIDY_FRAMES = 1000
"""Half a minute at 30 Hz: a collection of what came to life since the start costs about a millisecond."""


def limit_arenas(count: int = ARENAS) -> bool:
    """Have the C library share `count` arenas among all threads; what the environment says of them goes first.

    Call it before threads start: arenas that are there stay.

    Returns:
        Whether a limit is in effect; False where the C library is not glibc.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, count))


class Heap:
    """Python's share: kept out of the way of the engine, and tidied as it runs."""

    def __init__(self) -> None:
        self._frames = 0

    def settle(self) -> None:
        """Once everything is loaded: what lives now lives to the end.

        Without it a full collection takes the time of two frames, with it a millisecond.
        """
        gc.collect()
        gc.freeze()

    def frame(self) -> None:
        """Count a frame, and now and then collect in full: rings, and the tuples the interpreter keeps for later use.

        Left alone it comes to that only once objects by the ten thousands have piled up.
        """
        self._frames += 1
        if self._frames % _TIDY_FRAMES == 0:
            gc.collect()
