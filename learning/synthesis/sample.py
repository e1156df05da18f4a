"""One training sample and what its instance ids mean."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

SIZE = (256, 448)
"""Height, width of a sample: the model input."""

LABEL_STRIDE = 2
"""Instance ids are stored at half resolution; the network predicts at a quarter."""

MAX_INSTANCES = 32


class Kind(IntEnum):
    """Meaning of one instance id of a sample."""

    ABSENT = 0
    MOVING = 1
    STATIC = 2
    DISTRACTOR = 3
    UNSURE = 4


class Origin(IntEnum):
    """What a sample shows; decides which losses may trust its unlabelled pixels."""

    COMPOSITE = 0
    PEOPLE = 1
    COCO = 2
    ANIMALS = 3
    PILE = 4
    CLIP = 5
    STORE = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame with its motion features and labels.

    Attributes:
        image: uint8 [256, 448, 3] RGB.
        motion: float32 [5, 128, 224] features at FEATURE_SIZE, or None when the frame has no motion input.
        ids: uint8 [256, 448] visible instance ids, 0 = background.
        kinds: uint8 [32], `Kind` of every id; entry 0 is always ABSENT.
        origin: what the sample shows.
    """

    image: np.ndarray
    motion: np.ndarray | None
    ids: np.ndarray
    kinds: np.ndarray
    origin: Origin
