"""One captured image and where and when it came from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame in hand.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        index: capture index of the source, starting at 0; gaps are dropped frames.
        t_capture_ns: Unix time of acquisition in nanoseconds (for files: when it was decoded).
        source: name of the source.
        pts_ns: presentation time inside a file in nanoseconds, None for live sources.
        truth: optional uint16 [H, W] exact instance ids (0 = background), from the built-in scene only.
    """

    image: np.ndarray
    index: int
    t_capture_ns: int
    source: str
    pts_ns: int | None = None
    truth: np.ndarray | None = None
