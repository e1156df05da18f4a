"""Windows of frames from unlabelled clips, decoded once into one memory-mapped file; frame pairs drawn from them."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from engine.errors import StoreError, UsageError
from learning.amd.drawn import drawn_pair
from learning.footage import clip_length, find_clips, is_held_out

SIZE = (64, 128)
"""Height, width at which AMD sees: a step costs a tenth of one at the engine's size, and what is learned is coarse."""

WINDOW = 4
"""Frames of a window."""

STEP = 2
"""Frames of the clip from one frame of a window to the next: at this size neighbours hardly differ."""

FRAMES_PER_SOURCE = 8000
"""Every source (sub-folder) gets as many, however many clips it has: sample by source, not by frame."""

_MIN_DIFFERENCE, _MAX_DIFFERENCE = 1.5, 45.0
"""Mean gray levels between the frames of a pair: below nothing moves, above is a cut."""

DRAWN_SOURCE = "drawn"


@dataclass(frozen=True)
class Window:
    """`count` neighbouring rows of the cache from `first` on, of one clip.

    Attributes:
        source: name of the sub-folder the clip lies in.
        held_out: measures only.
    """

    first: int
    count: int
    source: str
    clip: str
    held_out: bool


class Clips:
    """A cache on disk.

    Attributes:
        frames: uint8 [N, h, w, 3] RGB, memory-mapped.
        windows: what belongs together.

    Raises:
        StoreError: not a cache of this program.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            shape = (int(index["frames"]), *index["size"], 3)
            self.frames = np.memmap(folder / "frames.rgb", np.uint8, "r", shape=shape)
            self.windows = [Window(**row) for row in index["windows"]]
        except (OSError, LookupError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:80]
            raise StoreError(f"--cache {folder}: not a cache of clips ({reason}): delete it to make it anew") from None

    def of(self, held_out: bool) -> list[Window]:
        """Windows that train, or those that measure."""
        return [window for window in self.windows if window.held_out is held_out]


def spread_starts(frames: int, windows: int, length: int) -> list[int]:
    """First frames of at most `windows` windows of `length` frames, evenly spread over a clip, without overlap."""
    count = min(windows, frames // length)
    return [round(i * (frames - length) / max(1, count - 1)) if count > 1 else 0 for i in range(count)]


def read_windows(video: Path, starts: Sequence[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Windows uint8 [WINDOW, h, w, 3] RGB of a clip at the given first frames; fewer where it breaks off."""
    capture = cv2.VideoCapture(str(video))
    try:
        at = 0
        for start in starts:
            taken: list[np.ndarray] = []
            # Seeking lands on different frames with different decoders; grabbing is exact and cheap.
            for number in range(at, start + (WINDOW - 1) * STEP + 1):
                if not capture.grab():
                    return
                at = number + 1
                if number >= start and (number - start) % STEP == 0:
                    ok, frame = capture.retrieve()
                    if not ok:
                        return
                    taken.append(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)[..., ::-1])
            yield np.stack(taken)
    finally:
        capture.release()


def build(
    clips: Path,
    folder: Path,
    *,
    drawn: int = 0,
    frames_per_source: int = FRAMES_PER_SOURCE,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Clips:
    """Decode the clips below `clips` into `folder`, or open what lies there from before.

    Args:
        drawn: pairs of drawn scenes (`drawn_pair`) added as a source of their own; one in sixteen is held out.
        frames_per_source: at most so many frames of every sub-folder.

    Raises:
        UsageError: no such folder, or no video in it.
        StoreError: the cache cannot be written.
    """
    if (folder / "index.json").exists():
        return Clips(folder)
    by_source: dict[str, list[Path]] = {}
    for video in find_clips(clips):
        by_source.setdefault(video.parent.name, []).append(video)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        windows: list[Window] = []
        with (part / "frames.rgb").open("wb") as file:
            for source, videos in by_source.items():
                _add_clips(file, windows, source, videos, frames_per_source, size)
                tell(f"{source}: {len(videos)} clips, {_frames(windows)} frames so far")
            _add_drawn(file, windows, drawn, size, seed)
        if not any(not window.held_out for window in windows):
            raise UsageError(f"--clips {clips}: no clip is left to train on, one group in sixteen is held out")
        index = {"frames": _frames(windows), "size": size, "windows": [vars(window) for window in windows]}
        (part / "index.json").write_text(json.dumps(index), encoding="utf-8")
        part.rename(folder)
    except OSError as error:
        raise StoreError(f"--cache {folder}: {error.strerror or error}: make room or give another folder") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Clips(folder)


def _frames(windows: Sequence[Window]) -> int:
    return windows[-1].first + windows[-1].count if windows else 0


def _add_clips(
    file: BinaryIO,
    windows: list[Window],
    source: str,
    videos: Sequence[Path],
    frames_per_source: int,
    size: tuple[int, int],
) -> None:
    each = max(1, frames_per_source // len(videos) // WINDOW)
    for video in videos:
        for window in read_windows(video, spread_starts(clip_length(video), each, WINDOW * STEP), size):
            file.write(np.ascontiguousarray(window).tobytes())
            windows.append(Window(_frames(windows), WINDOW, source, video.stem, is_held_out(video)))


def _add_drawn(file: BinaryIO, windows: list[Window], count: int, size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(count):
        for image in drawn_pair(rng).images:
            file.write(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).tobytes())
        windows.append(Window(_frames(windows), 2, DRAWN_SOURCE, str(number), number % 16 == 0))


class Pairs:
    """Frame pairs with motion in them, the same sequence for the same seed.

    Args:
        windows: where to draw from; every source is as likely.
        crop: (h, w) of the pairs, a random part of the frames; None: whole frames.
        flip: mirror half of them.
    """

    def __init__(
        self,
        clips: Clips,
        windows: Sequence[Window],
        seed: int,
        crop: tuple[int, int] | None = None,
        flip: bool = True,
    ) -> None:
        if not windows:
            raise UsageError("no window of frames to draw pairs from: give more or longer clips")
        self._frames, self._crop, self._flip = clips.frames, crop, flip
        self._by_source: dict[str, list[Window]] = {}
        for window in windows:
            self._by_source.setdefault(window.source, []).append(window)
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int) -> np.ndarray:
        """`count` pairs, uint8 [count, 2, 3, h, w] RGB."""
        return np.stack([self._pair() for _ in range(count)])

    def _pair(self, attempts: int = 20) -> np.ndarray:
        rng = self._rng
        sources = list(self._by_source)
        for _ in range(attempts):
            windows = self._by_source[sources[int(rng.integers(len(sources)))]]
            window = windows[int(rng.integers(len(windows)))]
            first, second = rng.choice(window.count, 2, replace=False)
            pair = np.stack([self._frames[window.first + first], self._frames[window.first + second]])
            coarse = pair[:, ::4, ::4].astype(np.int16)
            if _MIN_DIFFERENCE <= float(np.abs(coarse[0] - coarse[1]).mean()) <= _MAX_DIFFERENCE:
                break
        if self._crop is not None:
            top, left = (int(rng.integers(n - c + 1)) for n, c in zip(pair.shape[1:3], self._crop, strict=True))
            pair = pair[:, top : top + self._crop[0], left : left + self._crop[1]]
        if self._flip and rng.random() < 0.5:
            pair = pair[:, :, ::-1]
        return np.ascontiguousarray(pair.transpose(0, 3, 1, 2))
