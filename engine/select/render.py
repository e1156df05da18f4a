"""Which mask of a combination owns a pixel.

Where tolerated overlaps meet, the mask of lower mean background log-odds wins, of equal ones the later.
"""

from dataclasses import dataclass

import numpy as np

from engine.select.compiled import compiled, lowest_bit
from engine.select.masks import PackedMasks


@dataclass(frozen=True, slots=True)
class Rendered:
    """The kept combinations of one frame, drawn.

    Attributes:
        unions: int64 [K, W], selected pixels of each combination as bit sets.
        areas: int64 [K], pixels in each union.
        owners: int16 [K, h*w], mask that owns each pixel, -1 where none does.
        choices: int64 [h*w], bit k is set where combination k selects the pixel.
    """

    unions: np.ndarray
    areas: np.ndarray
    owners: np.ndarray
    choices: np.ndarray


def paint_order(members: tuple[int, ...], mean_logits: np.ndarray) -> list[int]:
    """`members` in the order to paint them, the owner of every overlap last."""
    place = np.empty(len(mean_logits), np.int64)
    place[_descending(mean_logits)] = np.arange(len(mean_logits))
    return sorted(members, key=place.tolist().__getitem__)


def _descending(mean_logits: np.ndarray) -> np.ndarray:
    return np.argsort(-mean_logits, kind="stable")


def render(masks: PackedMasks, combinations: list[tuple[int, ...]], mean_logits: np.ndarray) -> Rendered:
    """Draw combinations of mask indices.

    Args:
        combinations: at most 64.
        mean_logits: float [N], mean background log-odds under each mask.
    """
    flat = np.array([member for members in combinations for member in members], np.int64)
    ends = np.cumsum([len(members) for members in combinations], dtype=np.int64)
    h, w = masks.shape
    unions, areas, owners, choices = _draw(masks.words, flat, ends, _descending(mean_logits), h * w)
    return Rendered(unions, areas, owners, choices)


def label_owners(masks: PackedMasks, members: tuple[int, ...], mean_logits: np.ndarray) -> np.ndarray:
    """The mask that owns each pixel when `members` are selected: int16 [h, w], -1 is background."""
    owners: np.ndarray = render(masks, [members], mean_logits).owners[0].reshape(masks.shape)
    return owners


@compiled
def _draw(
    words: np.ndarray, members: np.ndarray, ends: np.ndarray, order: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    k, n_words = len(ends), words.shape[1]
    unions = np.zeros((k, n_words), np.int64)
    areas = np.zeros(k, np.int64)
    owners = np.full((k, pixels), -1, np.int16)
    choices = np.zeros(pixels, np.int64)
    place = np.empty(len(order), np.int64)
    for position in range(len(order)):
        place[order[position]] = position
    painted = members.copy()
    first = 0
    for row in range(k):
        for position in range(first, ends[row]):
            # Insertion sort: a combination has a handful of members.
            member = painted[position]
            while position > first and place[painted[position - 1]] > place[member]:
                painted[position] = painted[position - 1]
                position -= 1
            painted[position] = member
        for position in range(first, ends[row]):
            member = painted[position]
            for j in range(n_words):
                word = words[member, j]
                unions[row, j] |= word
                while word != 0:
                    owners[row, 64 * j + lowest_bit(word)] = member
                    word &= word - 1
        first = ends[row]
        for j in range(n_words):
            word = unions[row, j]
            while word != 0:
                choices[64 * j + lowest_bit(word)] |= 1 << row
                areas[row] += 1
                word &= word - 1
    return unions, areas, owners, choices
