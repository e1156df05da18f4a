"""Clips decoded once: eight bursts of six successive frames each, with the saliency of every frame."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError, UsageError
from learning.footage import find_clips, is_held_out, spread
from learning.mug.saliency import binary_saliency, saliency

SEGMENTS = 8
"""Equal parts a clip is split into, one burst from each (K)."""

BURST = 6
"""Successive frames of a burst."""

SIZE = (128, 224)
"""Rows and columns of a stored frame."""

STRIDE = 4
"""Pixels per cell of a map."""

_LEAST_FRAMES = BURST + SEGMENTS - 1
_LAYOUT = 1


@dataclass(frozen=True)
class Bursts:
    """A folder of decoded clips.

    Attributes:
        frames: uint8 [V, 8, 6, h, w, 3] RGB, memory-mapped.
        maps: uint8 [V, 8, 6, h/4, w/4], 255 where the picture stands out, memory-mapped.
        starts: int64 [V, 8], number of the first frame of every burst.
        names: of the clips, V.
        held_out: bool [V], clips that only measure.
        sources: name of the folder every clip came from, V.
    """

    frames: np.ndarray
    maps: np.ndarray
    starts: np.ndarray
    names: list[str]
    held_out: np.ndarray
    sources: list[str]

    @classmethod
    def open(cls, folder: Path) -> "Bursts":
        """Bursts that `build` wrote.

        Raises:
            StoreError: there are none, or not of this layout.
        """
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["layout"] != _LAYOUT:
                raise ValueError(f"layout {index['layout']}, this program reads {_LAYOUT}")
            count = len(index["names"])
            frames = np.load(folder / "frames.npy", mmap_mode="r")[:count]
            maps = np.load(folder / "maps.npy", mmap_mode="r")[:count]
            return cls(
                frames,
                maps,
                np.asarray(index["starts"], np.int64),
                index["names"],
                np.asarray(index["held_out"], bool),
                index["sources"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:80]
            raise StoreError(f"{folder}: no bursts of clips ({reason}): delete the folder to make it again") from None


def burst_starts(frames: int, rng: np.random.Generator) -> np.ndarray:
    """First frame of a burst in each of eight equal segments, int64 [8], ascending and all different.

    Where a segment is shorter than a burst the bursts overlap and lie evenly.

    Raises:
        ValueError: fewer than 13 frames.
    """
    if frames < _LEAST_FRAMES:
        raise ValueError(f"{frames} frames, at least {_LEAST_FRAMES} needed")
    edges = np.arange(SEGMENTS + 1) * frames // SEGMENTS
    room = np.diff(edges) - BURST
    if room.min() >= 0:
        return edges[:-1] + rng.integers(0, room + 1)
    return np.arange(SEGMENTS) * (frames - BURST) // (SEGMENTS - 1)


def read_bursts(video: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Frames uint8 [8, 6, h, w, 3] RGB and starts int64 [8] of a clip; None where it is unreadable or too short."""
    images = _decode(video)
    if len(images) < _LEAST_FRAMES:
        return None
    starts = burst_starts(len(images), rng)
    return np.stack([images[start : start + BURST] for start in starts]), starts


def _decode(video: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(video))
    images = []
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            small = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
            images.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    return np.asarray(images, np.uint8)


def map_of(image: np.ndarray) -> np.ndarray:
    """Saliency of an RGB frame uint8 [h, w, 3] on the map's grid: uint8 [h/4, w/4], 0 or 255."""
    mask = binary_saliency(saliency(np.ascontiguousarray(image[..., ::-1]))).astype(np.float32)
    h, w = image.shape[0] // STRIDE, image.shape[1] // STRIDE
    return np.where(cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA) >= 0.5, 255, 0).astype(np.uint8)


def choose_clips(clips: Path, per_source: int) -> list[Path]:
    """At most `per_source` clips of every folder below `clips`, evenly spread; sources differ much in size.

    Raises:
        UsageError: no clips there, or `per_source` is below 1.
    """
    if per_source < 1:
        raise UsageError(f"--per-source {per_source}: must be at least 1")
    by_folder: dict[Path, list[Path]] = {}
    for video in find_clips(clips):
        by_folder.setdefault(video.parent, []).append(video)
    return [video for folder in sorted(by_folder) for video in spread(by_folder[folder], per_source)]


def build(clips: Path, out: Path, per_source: int, seed: int, say: Callable[[str], None]) -> Bursts:
    """Decode clips into `out` and compute their saliency; what is there already is opened as it is.

    Raises:
        UsageError: no clips, or none that is long enough.
        StoreError: `out` cannot be written or holds something else.
    """
    if (out / "index.json").exists():
        return Bursts.open(out)
    videos = choose_clips(clips, per_source)
    index: dict[str, list] = {"names": [], "starts": [], "held_out": [], "sources": []}
    h, w = SIZE
    try:
        out.mkdir(parents=True, exist_ok=True)
        shape = (len(videos), SEGMENTS, BURST, h, w, 3)
        frames = np.lib.format.open_memmap(out / "frames.npy", "w+", np.uint8, shape)
        maps = np.lib.format.open_memmap(out / "maps.npy", "w+", np.uint8, (*shape[:3], h // STRIDE, w // STRIDE))
        for number, video in enumerate(videos):
            found = read_bursts(video, np.random.default_rng([seed, number]))
            if found is None:
                continue
            place = len(index["names"])
            frames[place] = found[0]
            maps[place] = [[map_of(image) for image in burst] for burst in found[0]]
            index["names"].append(video.stem)
            index["starts"].append(found[1].tolist())
            index["held_out"].append(is_held_out(video))
            index["sources"].append(video.parent.name)
            if number % 20 == 0:
                say(f"clip {number + 1} of {len(videos)}")
        if not index["names"]:
            raise UsageError(f"--clips {clips}: none of {len(videos)} videos has {_LEAST_FRAMES} readable frames")
        frames.flush()
        maps.flush()
        part = out / "index.json.part"
        part.write_text(json.dumps({"layout": _LAYOUT, "seed": seed, **index}), encoding="utf-8")
        part.replace(out / "index.json")
    except OSError as error:
        raise StoreError(f"--cache {out}: {error.strerror or error}: make room or give another folder") from None
    return Bursts.open(out)
