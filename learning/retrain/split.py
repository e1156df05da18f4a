"""Which frames of a store only judge: whole blocks of time of one camera, never neighbours of frames that teach."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import StoreError

_ONE_IN = 5
_BLOCKS_S = (20, 5)
"""The first makes the split of the store itself (`FrameRecord.held_out`); the second is for stores of few minutes."""

_ENOUGH_BLOCKS = 6
"""Held-out blocks below which shorter ones are tried: a standard error of fewer says little."""

FEWEST_BLOCKS = 3
"""Below, a standard error is a matter of luck: two blocks that agree by chance would prove anything."""

_GUARD = 0.1
"""Share of a block's length: frames that teach keep this distance in time from frames that judge."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where and when a stored frame was seen.

    Attributes:
        frame: id in the store.
        view: session and source: frames of one view show the same place.
        time_ns: when, inside a file if it was one.
        usefulness: as the store has it.
    """

    frame: int
    view: str
    time_ns: int
    usefulness: float


@dataclass(frozen=True)
class Split:
    """Ids of frames that teach, most useful first, and of frames that judge, block by block."""

    train: tuple[int, ...]
    held: dict[str, tuple[int, ...]]


def split_frames(moments: Sequence[Moment]) -> Split:
    """Hold out one block of time in five, chosen by a hash, so that a block stays where it is when the store grows.

    Raises:
        StoreError: the frames span too little to hold anything out.
    """
    best: Split | None = None
    for block_s in _BLOCKS_S:
        found = _split_by(moments, block_s)
        if len(found.held) >= _ENOUGH_BLOCKS and found.train:
            return found
        if found.train and len(found.held) >= max(FEWEST_BLOCKS, len(best.held) + 1 if best else 0):
            best = found
    if best is None:
        views = len({moment.view for moment in moments})
        raise StoreError(
            f"store: {len(moments)} frames of {views} recordings are too few to hold {FEWEST_BLOCKS} blocks of "
            f"{_BLOCKS_S[-1]} s out of training: record longer, or more places"
        )
    return best


def _split_by(moments: Sequence[Moment], block_s: int) -> Split:
    block_ns = block_s * 1_000_000_000
    blocks: dict[str, list[Moment]] = {}
    for moment in moments:
        blocks.setdefault(f"{moment.view}/{moment.time_ns // block_ns}", []).append(moment)
    held = {name: found for name, found in blocks.items() if _hash(name) % _ONE_IN == 0}
    guard_ns = int(_GUARD * block_ns)
    borders: dict[str, list[tuple[int, int]]] = {}
    for found in held.values():
        times = [moment.time_ns for moment in found]
        borders.setdefault(found[0].view, []).append((min(times) - guard_ns, max(times) + guard_ns))
    train = [
        moment
        for name, found in blocks.items()
        if name not in held
        for moment in found
        if not any(low <= moment.time_ns <= high for low, high in borders.get(moment.view, []))
    ]
    train.sort(key=lambda moment: (-moment.usefulness, moment.frame))
    return Split(
        tuple(moment.frame for moment in train),
        {name: tuple(m.frame for m in found) for name, found in sorted(held.items(), key=_by_hash)},
    )


def _by_hash(item: tuple[str, list[Moment]]) -> int:
    # Any order that no camera and no hour comes first in.
    return _hash(f"order/{item[0]}")


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)
