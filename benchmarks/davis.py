"""Annotated sequences: the DAVIS layout and the CDnet layout, read into one shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import SourceError


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3] BGR.

    Raises:
        SourceError: not a readable image.
    """
    image = _decode(path, cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: not a readable image; check the file")
    return image


def read_ids(path: Path) -> np.ndarray:
    """An annotation as int32 [H, W], 0 where it is black.

    A gray file keeps its values. In a file with a palette, decoded to colours, every colour is one id:
    blue + 256 green + 65536 red, the same in all files that share the palette.

    Raises:
        SourceError: not a readable image.
    """
    mask = _decode(path, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise SourceError(f"{path}: not a readable image; check the file")
    if mask.ndim == 2:
        return mask.astype(np.int32)
    blue, green, red = (mask[:, :, channel].astype(np.int32) for channel in range(3))
    return blue + 256 * green + 65536 * red


def _decode(path: Path, flags: int) -> np.ndarray | None:
    # From memory: a file that is missing or empty would make OpenCV write a warning of its own.
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    return cv2.imdecode(data, flags) if len(data) else None


@dataclass(frozen=True)
class Sequence:
    """One annotated sequence: frame files and mask files in order."""

    name: str
    frames: list[Path]
    masks: list[Path]

    def image(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 [H, W, 3] BGR."""
        return read_image(self.frames[index])

    def truth(self, index: int) -> np.ndarray:
        """Annotation of frame `index`, int32 [H, W], 0 is background."""
        return read_ids(self.masks[index])

    def first(self, count: int | None) -> "Sequence":
        """The first `count` frames; all of them for None."""
        return Sequence(self.name, self.frames[:count], self.masks[:count])


def sequences(folder: Path, resolution: str = "480p") -> Iterator[Sequence]:
    """Every sequence of FOLDER/JPEGImages/<resolution>/<name> with its annotations.

    Args:
        resolution: name of the folder in between; empty where the layout has none.

    Raises:
        SourceError: no such layout, no sequence in it, or frames without masks.
    """
    root = folder / "JPEGImages" / resolution
    if not root.is_dir():
        raise SourceError(f"{folder}: no {Path('JPEGImages') / resolution} (expected the DAVIS layout)")
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    if not names:
        raise SourceError(f"{root}: holds no sequence (expected one folder of frames per sequence)")
    for name in names:
        masks = sorted((folder / "Annotations" / resolution / name).glob("*.png"))
        yield _paired(name, sorted((root / name).glob("*.jpg")), masks)


def change_sequence(folder: Path) -> Sequence:
    """A sequence in the layout of CDnet: FOLDER/input/*.jpg and FOLDER/groundtruth/*.png.

    Raises:
        SourceError: no such layout, or frames without masks.
    """
    for name in ("input", "groundtruth"):
        if not (folder / name).is_dir():
            raise SourceError(f"{folder}: no {name}/ (expected the CDnet layout)")
    frames, masks = sorted((folder / "input").glob("*.jpg")), sorted((folder / "groundtruth").glob("*.png"))
    return _paired(folder.name, frames, masks)


def _paired(name: str, frames: list[Path], masks: list[Path]) -> Sequence:
    if len(masks) != len(frames):
        raise SourceError(f"{name}: {len(frames)} frames but {len(masks)} masks; every frame needs one")
    if len(frames) < 3:
        raise SourceError(f"{name}: {len(frames)} frames, at least 3 needed (first and last are not scored)")
    return Sequence(name, frames, masks)
