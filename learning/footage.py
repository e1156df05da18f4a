"""Unlabelled clips: which ones there are, which are kept apart, and their frames."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from engine.errors import UsageError
from learning.synthesis.sample import SIZE

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")

HELD_OUT_ONE_IN = 16

_DROID = re.compile(r"droid_(\d+)")
_VIEWS = 3
"""Cameras of one DROID episode: recordings are numbered through, so three in a row show the same scene."""


def clip_group(name: str) -> str:
    """What a clip shows, as far as its name tells: recordings of one group are never split.

    Views of one DROID episode are one group, and so are numbered takes (`bottle_0`, `bottle_1`).
    """
    droid = _DROID.fullmatch(name)
    if droid:
        return f"droid_{int(droid[1]) // _VIEWS}"
    # A name that is only a number tells nothing: such clips are not of one group.
    return re.sub(r"_?\d+$", "", name) or name


def is_held_out(video: Path) -> bool:
    """Whether a clip only ever measures: one group in sixteen, by a hash of the group's name."""
    return zlib.crc32(clip_group(video.stem).encode()) % HELD_OUT_ONE_IN == 0


def find_clips(folder: Path) -> list[Path]:
    """Every video below `folder`, sorted.

    Raises:
        UsageError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise UsageError(f"--clips {folder} is not a folder: give one that holds videos, directly or in sub-folders")
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not videos:
        raise UsageError(f"--clips {folder} holds no video ({' '.join(SUFFIXES)})")
    return videos


def spread(videos: list[Path], limit: int) -> list[Path]:
    """At most `limit` of the videos, evenly spread."""
    return [videos[i * len(videos) // limit] for i in range(limit)] if len(videos) > limit else videos


def read_window(video: Path, start: int, frames: int) -> list[np.ndarray]:
    """Up to `frames` consecutive frames from number `start`, uint8 [256, 448, 3] BGR; empty if unreadable."""
    capture = cv2.VideoCapture(str(video))
    try:
        return list(_frames(capture, start, frames))
    finally:
        capture.release()


def clip_length(video: Path) -> int:
    """Number of frames the container promises; 0 if it cannot be opened."""
    capture = cv2.VideoCapture(str(video))
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def _frames(capture: cv2.VideoCapture, start: int, frames: int) -> Iterator[np.ndarray]:
    # Seeking lands on different frames with different decoders; grabbing is exact and cheap.
    for _ in range(start):
        if not capture.grab():
            return
    for _ in range(frames):
        ok, frame = capture.read()
        if not ok:
            return
        yield cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
