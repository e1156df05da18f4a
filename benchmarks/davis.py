"""Sequences in the DAVIS layout, and the two scores every report uses."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import SourceError


@dataclass(frozen=True)
class Sequence:
    """One annotated sequence: frame files and mask files in order."""

    name: str
    frames: list[Path]
    masks: list[Path]

    def truth(self, index: int) -> np.ndarray:
        """Annotation of frame `index`, uint8 [H, W], 0 is background."""
        mask = cv2.imread(str(self.masks[index]), cv2.IMREAD_UNCHANGED)
        if mask is None:
            raise SourceError(f"{self.masks[index]}: not a readable image")
        return mask if mask.ndim == 2 else mask.max(axis=2)


def sequences(folder: Path, resolution: str = "480p") -> Iterator[Sequence]:
    """Every sequence of FOLDER/JPEGImages/<resolution>/<name> with its annotations.

    Raises:
        SourceError: no such layout.
    """
    root = folder / "JPEGImages" / resolution
    if not root.is_dir():
        raise SourceError(f"{folder}: no JPEGImages/{resolution} (expected the DAVIS layout)")
    for path in sorted(p for p in root.iterdir() if p.is_dir()):
        masks = sorted((folder / "Annotations" / resolution / path.name).glob("*.png"))
        frames = sorted(path.glob("*.jpg"))
        if len(masks) != len(frames):
            raise SourceError(f"{path.name}: {len(frames)} frames but {len(masks)} masks")
        yield Sequence(path.name, frames, masks)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool maps; 1 when both are empty (the DAVIS convention)."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


class SequenceScore:
    """J_fg and J_best_id of one sequence; show every frame but the first and the last.

    J_fg: mean overlap of the foreground output with the merged annotation. J_best_id: mean overlap of
    the one id that matches best over the whole sequence, 0 in frames where it is absent.
    """

    def __init__(self) -> None:
        self._foreground: list[float] = []
        self._by_id: dict[int, float] = defaultdict(float)

    def add(self, truth: np.ndarray, foreground: np.ndarray, ids: np.ndarray) -> None:
        """One frame: bool [H, W] annotation, bool [H, W] foreground output, integer [H, W] ids."""
        self._foreground.append(iou(truth, foreground))
        for value in np.unique(ids):
            if value:
                self._by_id[int(value)] += iou(truth, ids == value)

    @property
    def frames(self) -> int:
        """Frames scored."""
        return len(self._foreground)

    @property
    def j_fg(self) -> float:
        """Mean J of the foreground output."""
        return float(np.mean(self._foreground)) if self._foreground else 0.0

    @property
    def j_best_id(self) -> float:
        """Mean J of the best single id."""
        return max(self._by_id.values(), default=0.0) / self.frames if self.frames else 0.0
