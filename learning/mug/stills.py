"""Photographs for the frame granularity: decoded once, with the saliency of each; clips alone show few scenes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError, UsageError
from learning.mug.bursts import SIZE, STRIDE, map_of

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LEAST_ASPECT = 1.3
"""Width over height below which the middle of a picture is cut out: stretched further, nothing keeps its shape."""


@dataclass(frozen=True)
class Stills:
    """A folder of decoded photographs.

    Attributes:
        images: uint8 [N, h, w, 3] RGB, memory-mapped.
        maps: uint8 [N, h/4, w/4], 255 where the picture stands out, memory-mapped.
    """

    images: np.ndarray
    maps: np.ndarray


def find_stills(folders: Sequence[Path]) -> list[Path]:
    """Pictures right below each folder, or below its `images` where there is one; masks beside those are not opened.

    Raises:
        UsageError: a folder without pictures.
    """
    found = []
    for folder in folders:
        inside = folder / "images" if (folder / "images").is_dir() else folder
        pictures = sorted(p for p in inside.glob("*") if p.suffix.lower() in _SUFFIXES)
        if not pictures:
            raise UsageError(f"--stills {folder}: no picture ({', '.join(_SUFFIXES)}) in {inside}")
        found += pictures
    return found


def read_still(path: Path) -> np.ndarray | None:
    """A photograph as the network's frames are stored, uint8 [h, w, 3] RGB; None where it is unreadable."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return None
    height, width = image.shape[:2]
    kept = min(height, round(width / _LEAST_ASPECT))
    image = image[(height - kept) // 2 :][:kept]
    return np.ascontiguousarray(cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)[..., ::-1])


def build_stills(folders: Sequence[Path], out: Path, say: Callable[[str], None]) -> Stills:
    """Decode photographs into `out` and compute their saliency; what is there already is opened as it is.

    Raises:
        UsageError: a folder without pictures.
        StoreError: `out` cannot be written or holds something else.
    """
    if (out / "index.json").exists():
        return open_stills(out)
    paths = find_stills(folders)
    images, maps = [], []
    for number, path in enumerate(paths):
        image = read_still(path)
        if image is not None:
            images.append(image)
            maps.append(map_of(image))
        if number % 100 == 0:
            say(f"picture {number + 1} of {len(paths)}")
    if not images:
        raise UsageError(f"--stills: none of {len(paths)} pictures can be read")
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / "images.npy", np.stack(images))
        np.save(out / "maps.npy", np.stack(maps))
        part = out / "index.json.part"
        part.write_text(json.dumps({"count": len(images), "folders": [f.name for f in folders]}), encoding="utf-8")
        part.replace(out / "index.json")
    except OSError as error:
        raise StoreError(f"--cache {out}: {error.strerror or error}: make room or give another folder") from None
    return open_stills(out)


def open_stills(folder: Path) -> Stills:
    """Stills that `build_stills` wrote.

    Raises:
        StoreError: there are none.
    """
    try:
        images, maps = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "maps"))
        if images.shape[1:] != (*SIZE, 3) or maps.shape != (len(images), SIZE[0] // STRIDE, SIZE[1] // STRIDE):
            raise ValueError(f"pictures {list(images.shape)}, maps {list(maps.shape)}")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise StoreError(f"{folder}: no stills ({reason}): delete the folder to make it again") from None
    return Stills(images, maps)
