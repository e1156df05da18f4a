"""Memory-mapped shards of samples: written once, resumable, read at random."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from engine.errors import StoreError
from engine.perceive.motion import FEATURE_CHANNELS, FEATURE_SIZE
from learning.synthesis.sample import LABEL_STRIDE, MAX_INSTANCES, SIZE, Origin, Sample

MOTION_STEP = np.array([1 / 28, 1 / 28, 1 / 14, 1 / 14, 1 / 31], np.float32)
"""Feature value of one int8 step: residual up to 4.5 (20 px), camera flow up to 9 (80 px), difference up to 4."""

_FIELDS = {
    "image": ((*SIZE, 3), np.uint8),
    "motion": ((FEATURE_CHANNELS, *FEATURE_SIZE), np.int8),
    "ids": ((SIZE[0] // LABEL_STRIDE, SIZE[1] // LABEL_STRIDE), np.uint8),
    "kinds": ((MAX_INSTANCES,), np.uint8),
    "origin": ((), np.uint8),
    "has_motion": ((), np.bool_),
}


def pack_motion(motion: np.ndarray) -> np.ndarray:
    """Features float32 [5, h, w] as int8 in steps of MOTION_STEP, saturating."""
    return np.clip(np.rint(motion / MOTION_STEP[:, None, None]), -127, 127).astype(np.int8)


def unpack_motion(packed: np.ndarray) -> np.ndarray:
    """Inverse of `pack_motion` up to half a step."""
    return packed.astype(np.float32) * MOTION_STEP[:, None, None]


def write_shard(path: Path, count: int, samples: Iterable[Sample]) -> None:
    """Write `count` samples; the shard appears under its name only when it is complete."""
    part = path.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    arrays = {n: open_memmap(part / f"{n}.npy", "w+", d, (count, *s)) for n, (s, d) in _FIELDS.items()}
    for name in arrays:
        _reserve(part / f"{name}.npy")
    for row, sample in enumerate(samples):
        arrays["image"][row] = sample.image
        arrays["motion"][row] = 0 if sample.motion is None else pack_motion(sample.motion)
        arrays["ids"][row] = sample.ids[::LABEL_STRIDE, ::LABEL_STRIDE]
        arrays["kinds"][row] = sample.kinds
        arrays["origin"][row] = sample.origin
        arrays["has_motion"][row] = sample.motion is not None
    for array in arrays.values():
        array.flush()
    part.rename(path)


def _reserve(path: Path) -> None:
    """Take the blocks of a sparse file now: writing to a mapped page the disk has no room for kills the process.

    Raises:
        OSError: there is no room.
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _open_shard(path: Path) -> dict[str, np.ndarray]:
    """Memory-mapped fields of one shard.

    Raises:
        StoreError: a field that is missing, unreadable, or not what this version writes.
    """
    fields = {}
    for name, (shape, dtype) in _FIELDS.items():
        try:
            fields[name] = array = np.load(path / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise StoreError(f"{path / name}.npy: cannot be read ({reason}): render it again") from None
        if array.shape[1:] != shape or array.dtype != dtype:
            found = f"{array.dtype} {array.shape[1:]}, now {np.dtype(dtype)} {shape}"
            raise StoreError(f"{path / name}.npy: made by another version ({found}): render it again")
    lengths = {len(array) for array in fields.values()}
    if len(lengths) > 1:
        raise StoreError(f"{path}: fields of different lengths {sorted(lengths)}: render it again")
    return fields


class Shards:
    """All shards of a folder as one indexable collection.

    Raises:
        StoreError: no shard there, or one of another version.
    """

    def __init__(self, folder: Path, prefix: str = "train") -> None:
        paths = sorted(folder.glob(f"{prefix}_*.shard"))
        if not paths:
            raise StoreError(f"no {prefix}_*.shard in {folder}: make them with python -m learning.synthesis")
        self._shards = [_open_shard(path) for path in paths]
        self._starts = np.cumsum([0, *(len(s["origin"]) for s in self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def origins(self) -> np.ndarray:
        """`Origin` of every sample, uint8 [len(self)]."""
        return np.concatenate([s["origin"] for s in self._shards])

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, Origin]:
        """Image uint8 [256, 448, 3] RGB, motion float32 [5, 128, 224] or None, ids uint8 [128, 224], kinds, origin."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[shard])
        fields = self._shards[shard]
        motion = unpack_motion(fields["motion"][row]) if fields["has_motion"][row] else None
        return (
            fields["image"][row],
            motion,
            fields["ids"][row],
            fields["kinds"][row],
            Origin(fields["origin"][row]),
        )
