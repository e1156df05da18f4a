"""What perception says about one frame, on the working grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Percepts:
    """Candidate masks and cues of one frame; h x w is the working grid (model input / stride).

    Attributes:
        masks: bool [N, h, w], candidates in the order of the network and the proposers.
        scores: float32 [N] in [0, 1], the detector's own opinion of each mask.
        background: float32 [h, w] in [0, 1], probability of background.
        embedding: float32 [E, h, w], or None when the model has none.
        flow: float32 [2, h, w], backward flow (dx, dy) in working-grid pixels: the content of pixel
            x was at x + flow(x) in the previous processed frame. None in the first frame.
        residual: float32 [2, h, w], `flow` with the camera's motion removed; None in the first frame.
        logits: float32 [N, h, w], soft masks; `masks` is `logits > 0`.
        timing_ms: what each stage of perception took.
        image: uint8 [h, w, 3] BGR, the frame on the working grid; None where nobody asks for colours.
    """

    masks: np.ndarray
    scores: np.ndarray
    background: np.ndarray
    embedding: np.ndarray | None
    flow: np.ndarray | None
    residual: np.ndarray | None
    logits: np.ndarray
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    image: np.ndarray | None = None
