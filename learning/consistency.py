"""How well a network's foreground agrees with itself over time and with the motion seen, without any labels."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from engine.config import PerceiveConfig
from engine.frame import Frame
from engine.perceive.motion import FEATURE_SIZE
from engine.perceive.network import Network, NetworkOutput
from engine.perceive.perceiver import Perceiver
from engine.select.warp import source_pixels
from learning.batches import MEAN, STD
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
    """

    stability: float
    coverage: float
    leak: float
    overall: float
    clips: int
    frames: int


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


class TrainingNetwork:
    """A torch network in place of an exported one, for measuring between two rounds of training.

    Args:
        network: maps image [1, 3, 256, 448] and motion [1, 5, 128, 224] to an object with `background`.
    """

    fit = Network.fit
    uses_motion = True
    size = SIZE
    motion_size = FEATURE_SIZE
    grid = (SIZE[0] // 4, SIZE[1] // 4)

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def run(self, small: np.ndarray, features: np.ndarray | None) -> NetworkOutput:
        """One forward pass; as `Network.run`, background only."""
        image = (small[..., ::-1].astype(np.float32) / 255 - MEAN) / STD
        assert features is not None
        image_in = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None].to(self._device)
        out = self._network(image_in, torch.from_numpy(features)[None].to(self._device))
        return NetworkOutput(None, None, out.background[0, 0].float().cpu().numpy(), None)


def _views(network: Network | TrainingNetwork, images: Iterable[np.ndarray]) -> list[View]:
    perceiver = Perceiver(network, PerceiveConfig())  # type: ignore[arg-type]
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


def combine(by_source: dict[str, list[Sequence[View]]]) -> Figures:
    """Figures of clips already seen, given per source."""
    parts: dict[str, list[float]] = {"stability": [], "coverage": [], "leak": []}
    for clips in by_source.values():
        per_clip = [(stability(views), *coverage_and_leak(views)) for views in clips]
        for name, values in zip(parts, zip(*per_clip, strict=True), strict=True):
            known = [value for value in values if value is not None]
            if known:
                parts[name].append(float(np.mean(known)))
    # Nothing found anywhere is no stability, and nothing to leak onto is no leak.
    steady, covered, leaked = (float(np.mean(parts[n])) if parts[n] else 0.0 for n in parts)
    overall = float(np.sqrt(steady * max(0.0, covered - leaked)))
    lengths = [len(views) for clips in by_source.values() for views in clips]
    return Figures(steady, covered, leaked, overall, len(lengths), sum(lengths))


def clip_consistency(
    network: Network | TrainingNetwork | nn.Module | Path, clips: Sequence[Path], frames: int
) -> Figures:
    """Measure a network on the first `frames` frames of each clip, which training must not have seen.

    Args:
        network: a loaded model, an ONNX file or a torch network.
        clips: videos; the folder of each is its source.
    """
    if isinstance(network, Path):
        network = Network(network, threads=1)
    elif isinstance(network, nn.Module):
        network = TrainingNetwork(network)
    by_source: dict[str, list[Sequence[View]]] = {}
    for video in clips:
        views = _views(network, read_window(video, 0, frames))
        if len(views) > 1:
            by_source.setdefault(video.parent.name, []).append(views)
    return combine(by_source)
