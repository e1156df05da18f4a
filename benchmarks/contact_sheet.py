"""One picture of the worst frames: the output, the outline of the annotation, and what kept J down."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.davis import Sequence
from benchmarks.footage import Recorder
from benchmarks.measures import FrameScore
from benchmarks.stills import outlined
from engine.errors import StoreError
from streaming.overlay import draw_overlay
from streaming.sinks.masks import FOREGROUND_LEVEL

MAX_WIDTH_PX = 1800
_COLUMNS = 4
_TILE_PX = MAX_WIDTH_PX // _COLUMNS
_CAPTION_PX = 26
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True)
class Tile:
    """A frame to show: its score, caption and picture (uint8 [h, 450, 3] with the caption below)."""

    sequence: str
    score: FrameScore
    picture: np.ndarray


def worst_of_halves(scores: list[FrameScore]) -> list[FrameScore]:
    """The frame of lowest J in each half of a sequence: two neighbours would show the same thing twice."""
    middle = len(scores) // 2
    return [min(half, key=lambda score: score.j) for half in (scores[:middle], scores[middle:]) if half]


def tiles(sequence: Sequence, scores: list[FrameScore], recorder: Recorder, moving_only: bool) -> list[Tile]:
    """Tiles of the worst frames of a sequence, at most two.

    Args:
        moving_only: the annotation is one of CDnet: outline its moving pixels only.
    """
    out = []
    for score in worst_of_halves(scores):
        labels, objects = recorder.scene(score.index)
        truth = sequence.truth(score.index)
        merged = (truth & 0xFF) == 255 if moving_only else truth > 0
        image = sequence.image(score.index)
        # The output that J judges in colour; ids called background stay visible as a thin line only.
        foreground = [item for item in objects if item.foreground > FOREGROUND_LEVEL]
        picture = draw_overlay(image, labels, foreground, scale=_TILE_PX / image.shape[1])
        size = (picture.shape[1], picture.shape[0])
        shown = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        for item in objects:
            if item not in foreground:
                inside = (shown == item.label).astype(np.uint8)
                lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(picture, lines, -1, (160, 160, 160), 1)
        picture = outlined(picture, cv2.resize(merged.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST))
        out.append(Tile(sequence.name, score, _captioned(picture, caption(sequence.name, score))))
    return out


def caption(name: str, score: FrameScore) -> str:
    """Sequence, frame, J and cause in one line."""
    return f"{name} {score.index}  J {score.j:.2f}  {score.cause} (P {score.precision:.2f} R {score.recall:.2f})"


def _captioned(picture: np.ndarray, text: str) -> np.ndarray:
    strip = np.full((_CAPTION_PX, picture.shape[1], 3), 24, np.uint8)
    scale = 0.45
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1.0, (picture.shape[1] - 8) / width)
    cv2.putText(strip, text, (4, _CAPTION_PX - 8), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def write_sheet(path: Path, shown: list[Tile], count: int) -> None:
    """The `count` tiles of lowest J in rows of four, worst first, at most 1800 pixels wide.

    Raises:
        StoreError: the file cannot be written.
    """
    worst = sorted(shown, key=lambda tile: tile.score.j)[:count]
    rows = []
    for start in range(0, len(worst), _COLUMNS):
        pictures = [tile.picture for tile in worst[start : start + _COLUMNS]]
        height = max(p.shape[0] for p in pictures)
        row = np.zeros((height, _COLUMNS * _TILE_PX, 3), np.uint8)
        for column, picture in enumerate(pictures):
            row[: len(picture), column * _TILE_PX : (column + 1) * _TILE_PX] = picture
        rows.append(row)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = bool(rows) and cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    except (OSError, cv2.error) as error:
        raise StoreError(f"--contact-sheet {path}: {' '.join(str(error).split())[:120]}") from None
    if not written:
        raise StoreError(f"--contact-sheet {path}: cannot be written")
