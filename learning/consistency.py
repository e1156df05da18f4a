"""How well a network's foreground agrees with itself over time and with the motion seen, without any labels."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.config import PerceiveConfig
from engine.errors import SourceError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver
from engine.select.warp import source_pixels
from learning.footage import read_window
from learning.synthesis.sample import SIZE

_STRONG_PX = 1.5
"""Residual motion, pixels of the 448x256 input, that only parallax or an object explains."""

_STILL_PX = 0.5
"""Residual motion below which a pixel goes with the camera."""


@dataclass(frozen=True)
class Figures:
    """Agreement on clips, all in [0, 1] except the counts; clips weigh the same within a source, sources too.

    Attributes:
        stability: mean IoU of the foreground with its flow-warped past, over frames where either has any.
        coverage: share of strongly moving pixels that are foreground.
        leak: share of the pixels that go with the camera that are foreground.
        overall: geometric mean of stability and coverage - leak; 0 for an empty map and for a full one.
        clips, frames: how much was measured.
        per_clip: `overall` of every clip in the order given, source by source; None where nothing moves strongly,
            which is a matter of the clip and not of the network.
    """

    stability: float
    coverage: float
    leak: float
    overall: float
    clips: int
    frames: int
    per_clip: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What is needed of one frame, on the working grid.

    Attributes:
        foreground: bool [h, w].
        flow, residual: float32 [2, h, w] backward, in grid pixels; None where nothing came before.
    """

    foreground: np.ndarray
    flow: np.ndarray | None
    residual: np.ndarray | None


def _views(network: Network, images: Iterable[np.ndarray]) -> list[View]:
    perceiver = Perceiver(network, PerceiveConfig())
    out = []
    for index, image in enumerate(images):
        percepts = perceiver.step(Frame(image, index, 0, "clip"))
        out.append(View(percepts.background < 0.5, percepts.flow, percepts.residual))
    return out


def stability(views: Sequence[View]) -> float | None:
    """Mean IoU of each foreground with its warped past; None when every map is empty or nothing moved on."""
    values = []
    for before, now in itertools.pairwise(views):
        if now.flow is None:
            continue
        source = source_pixels(now.flow)
        seen = source >= 0
        past = before.foreground.reshape(-1)[source] & seen
        present = now.foreground.reshape(-1) & seen
        union = int((past | present).sum())
        if union:
            values.append(int((past & present).sum()) / union)
    return float(np.mean(values)) if values else None


def coverage_and_leak(views: Sequence[View]) -> tuple[float | None, float | None]:
    """Shares of strongly moving and of still pixels that are foreground; None where there are none."""
    strong = still = covered = leaked = 0
    for view in views:
        if view.residual is None:
            continue
        motion_px = np.hypot(*view.residual) * (SIZE[0] / view.foreground.shape[0])
        moving, resting = motion_px > _STRONG_PX, motion_px < _STILL_PX
        # Specks of strong motion are flow errors.
        moving = cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
        strong += int(moving.sum())
        covered += int((moving & view.foreground).sum())
        still += int(resting.sum())
        leaked += int((resting & view.foreground).sum())
    return (covered / strong if strong else None), (leaked / still if still else None)


def overall_of(steady: float | None, covered: float | None, leaked: float | None) -> float | None:
    """Geometric mean of stability and coverage - leak; None without strong motion, which nothing could cover."""
    if covered is None:
        return None
    # Nothing found anywhere is no stability, and nothing to leak onto is no leak.
    return float(np.sqrt((steady or 0.0) * max(0.0, covered - (leaked or 0.0))))


def combine(by_source: dict[str, list[Sequence[View]]]) -> Figures:
    """Figures of clips already seen, given per source."""
    parts: dict[str, list[float]] = {"stability": [], "coverage": [], "leak": []}
    overalls: list[float | None] = []
    for clips in by_source.values():
        per_clip = [(stability(views), *coverage_and_leak(views)) for views in clips]
        overalls += [overall_of(*figures) for figures in per_clip]
        for name, values in zip(parts, zip(*per_clip, strict=True), strict=True):
            known = [value for value in values if value is not None]
            if known:
                parts[name].append(float(np.mean(known)))
    steady, covered, leaked = (float(np.mean(parts[n])) if parts[n] else 0.0 for n in parts)
    overall = overall_of(steady, covered, leaked) or 0.0
    lengths = [len(views) for clips in by_source.values() for views in clips]
    return Figures(steady, covered, leaked, overall, len(lengths), sum(lengths), tuple(overalls))


def clip_consistency(network: Network | Path, clips: Sequence[Path], frames: int) -> Figures:
    """Measure a network on the first `frames` frames of each clip, which training must not have seen.

    Args:
        network: a loaded model or an ONNX file.
        clips: videos; the folder of each is its source.

    Raises:
        SourceError: no clip has two readable frames.
    """
    if isinstance(network, Path):
        network = Network(network, threads=1)
    by_source: dict[str, list[Sequence[View]]] = {}
    for video in clips:
        views = _views(network, read_window(video, 0, frames))
        if len(views) > 1:
            by_source.setdefault(video.parent.name, []).append(views)
    if not by_source:
        raise SourceError(f"none of {len(clips)} clips has the two readable frames that a comparison needs")
    return combine(by_source)
