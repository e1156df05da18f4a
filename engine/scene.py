"""What is published about one frame: a label map without overlap and its objects."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a scene.

    Attributes:
        id: identity, unique within a session and never reused; may exceed 16 bits.
        label: pixel value of this object in the scene's label map (1 ... 65535).
        score: the detector's own score in [0, 1].
        box: (x0, y0, x1, y1) half-open, frame pixels.
        area: visible pixels.
        age: frames since the identity was first seen.
        novelty: sure over time, unsure in one image, in [0, 1].
        foreground: object-level saliency in [0, 1]; above 0.5 it belongs to the foreground output.
        uncertainty: in [0, 1], 0 when something surely is there and its border is clear.
    """

    id: int
    label: int
    score: float
    box: tuple[int, int, int, int]
    area: int
    age: int
    novelty: float
    foreground: float
    uncertainty: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """One thing or place that deserves another look.

    Attributes:
        id: identity of an object of the scene; None for a place no object covers.
        box: (x0, y0, x1, y1) half-open, frame pixels.
        reason: "novel" (the network has yet to learn it), "uncertain" (its mask or its worth is doubtful) or
            "unexplained" (foreground that no selected mask covers).
        priority: in [0, 1].
    """

    id: int | None
    box: tuple[int, int, int, int]
    reason: str
    priority: float


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """How a final scene was decided.

    Attributes:
        exact: True when the choice equals the optimum over the whole video.
        lag: frames between capture and decision.
        loss_bound: what a forced decision can have cost at most (0 when exact).
        margin: how much dearer the best other answer for this frame was; None when there was no other.
    """

    exact: bool
    lag: int
    loss_bound: float
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """One published answer about one frame.

    Attributes:
        frame_index: capture index of the frame described.
        kind: "provisional" (lag 0) or "final".
        labels: uint16 [H, W] at frame size, 0 is background.
        objects: the objects in the label map, ascending label.
        source, t_capture_ns, pts_ns: copied from the frame.
        commit: how it was decided; None for provisional scenes.
        look: what deserves another look, the most first, five at most.
        evidence: what the decision rests on, for recorders; final scenes of this process only.
    """

    frame_index: int
    kind: Literal["provisional", "final"]
    labels: np.ndarray
    objects: tuple[Object, ...]
    source: str
    t_capture_ns: int
    pts_ns: int | None = None
    commit: CommitInfo | None = None
    look: tuple[Look, ...] = ()
    evidence: Evidence | None = None
