"""Which stored frames show the same picture with the same selection: recordings are copied, and encoded again."""

from dataclasses import dataclass

import cv2
import numpy as np

from learning.store.records import FrameRecord

_HASH_GRID = (9, 8)
_BITS_APART = 3
"""Of 64. Another encoder changes one or two."""

_GLANCE = (64, 36)
_SAME_SELECTION = 0.9
"""Intersection over union of what is selected, above which the selection is the same, as for the recorder."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A picture and its selection, small.

    Attributes:
        picture: 64 bits, whether each cell of a coarse gray picture is brighter than its left neighbour.
        selected: bits of a bool [36, 64] map of what is selected.
    """

    picture: int
    selected: bytes

    def is_like(self, other: "Fingerprint") -> bool:
        """Whether both show the same."""
        if (self.picture ^ other.picture).bit_count() > _BITS_APART:
            return False
        a, b = (int.from_bytes(each.selected, "big") for each in (self, other))
        return (a & b).bit_count() >= _SAME_SELECTION * (a | b).bit_count()


def fingerprint(frame: FrameRecord) -> Fingerprint:
    """Of a stored frame.

    Raises:
        StoreError: its picture or a mask is damaged.
    """
    gray = cv2.cvtColor(cv2.resize(frame.image(), _HASH_GRID, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    bits = np.packbits(np.diff(gray.astype(np.int16), axis=1) > 0)
    selected = np.zeros(frame.size, np.uint8)
    for selection in frame.selections:
        selected[selection.mask()] = 1
    small = cv2.resize(selected, _GLANCE, interpolation=cv2.INTER_NEAREST)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), np.packbits(small).tobytes())


class Known:
    """Fingerprints seen so far.

    Two that differ in three bits of 64 share at least one of four 16-bit bands, so only those are compared.
    """

    def __init__(self) -> None:
        self._bands: list[dict[int, list[Fingerprint]]] = [{} for _ in range(_BITS_APART + 1)]

    def add(self, found: Fingerprint) -> bool:
        """Remember it; False when one like it is known already."""
        keys = [found.picture >> (16 * band) & 0xFFFF for band in range(len(self._bands))]
        for band, key in zip(self._bands, keys, strict=True):
            if any(found.is_like(other) for other in band.get(key, ())):
                return False
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, []).append(found)
        return True
