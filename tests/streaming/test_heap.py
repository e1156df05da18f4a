"""Memory that would pile up in a long run is given back, and threads do not each fill an arena of their own."""

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from streaming.heap import Heap

_FRAMES = 2000
"""Enough for the heap to be tidied whatever came before."""

_HEAPS = """
import ctypes, sys, threading
from streaming.heap import limit_arenas
if sys.argv[1] == "limit":
    assert limit_arenas(3)
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(9)
def work():
    malloc(100_000)
    barrier.wait(60)
    barrier.wait(60)
threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
for thread in threads: thread.start()
barrier.wait(60)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
barrier.wait(60)
"""


class Ring:
    """Something only a garbage collection lets go of."""

    def __init__(self) -> None:
        self.itself = self


def test_a_ring_is_let_go_of_while_frames_come_though_nothing_asks_for_a_collection() -> None:
    heap = Heap()
    gc.disable()
    try:
        ring = weakref.ref(Ring())
        assert ring() is not None
        for _ in range(_FRAMES):
            heap.frame()
        assert ring() is None
    finally:
        gc.enable()


def test_tuples_the_interpreter_keeps_for_later_use_do_not_pile_up() -> None:
    heap = Heap()
    gc.disable()
    try:
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(_FRAMES):
            for size in range(1, 9):
                # Made longer than it ends up: taken from one list of spare tuples, given back to another.
                tuple(item for item in range(size))
            heap.frame()
        assert sys.getallocatedblocks() - before < 2000
    finally:
        gc.enable()


def test_what_lives_when_the_heap_settles_is_not_looked_at_again() -> None:
    frozen = gc.get_freeze_count()
    try:
        Heap().settle()
        assert gc.get_freeze_count() > frozen
        assert len(gc.get_objects()) < gc.get_freeze_count()
    finally:
        gc.unfreeze()


def heaps(tmp_path: Path, how: str, **environment: str) -> int:
    """Arenas of a process with nine threads."""
    file = tmp_path / "heaps.xml"
    inherited = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    command = [sys.executable, "-c", _HEAPS, how, str(file)]
    subprocess.run(command, check=True, timeout=120, env={**inherited, **environment})
    return file.read_text(encoding="utf-8").count("<heap ")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_threads_share_as_many_arenas_as_the_limit_says(tmp_path: Path) -> None:
    assert heaps(tmp_path, "limit") <= 3 < heaps(tmp_path, "free")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_what_the_environment_says_of_arenas_goes_first(tmp_path: Path) -> None:
    assert 3 < heaps(tmp_path, "limit", MALLOC_ARENA_MAX="6") <= 6
    assert 3 < heaps(tmp_path, "limit", GLIBC_TUNABLES="glibc.malloc.arena_max=6") <= 6
