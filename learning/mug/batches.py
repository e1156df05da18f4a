"""Batches of videos: one frame of each of eight segments, and two more of the burst a patch is tracked in.

Batches of single frames, of clips and photographs, teach the frame granularity more in the same time: a video's frames
are much alike.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.errors import StoreError
from learning.batches import MEAN, STD
from learning.mug.bursts import BURST, SEGMENTS, STRIDE, Bursts
from learning.mug.stills import Stills
from learning.networks.mug import SEEN

DISTANT_FRAMES = 6
"""Least distance of the two frames that are matched at long range."""

TRACKED = 3
"""Frames a patch is tracked over, drawn in order from one burst."""

_COLOUR_GAIN = 0.2


@dataclass
class VideoBatch:
    """Tensors of one step, N videos of K = 8 frames.

    Attributes:
        images: float32 [N, K, 3, H, W], normalised RGB.
        initial: Q of every frame, float32 [N, K, 1, H/4, W/4] of zeros and ones.
        later: float32 [N, 2, 3, H, W], frames that follow the query's in its burst.
        query: int64 [N], the frame among K that is queried, tracked from and matched.
        other: int64 [N], another one at least six frames away.
    """

    images: Tensor
    initial: Tensor
    later: Tensor
    query: Tensor
    other: Tensor

    def to(self, device: torch.device) -> "VideoBatch":
        """The batch with its tensors moved."""
        return VideoBatch(**{name: value.to(device) for name, value in vars(self).items()})

    def of_query(self, values: Tensor) -> Tensor:
        """The query's entries [N, ...] of [N, K, ...]."""
        return values[torch.arange(len(values), device=values.device), self.query]

    def of_other(self, values: Tensor) -> Tensor:
        """The other frame's entries [N, ...] of [N, K, ...]."""
        return values[torch.arange(len(values), device=values.device), self.other]


def choose_frames(starts: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Which frames of a clip's bursts a step sees.

    Args:
        starts: int64 [8], first frame of every burst.

    Returns:
        offsets int64 [8], the frame taken of every burst; tracked int64 [3], ascending offsets within the query's
        burst, the first of them its own; query and other, bursts whose frames are at least six apart.
    """
    offsets = rng.integers(0, BURST, SEGMENTS)
    query = int(rng.integers(SEGMENTS))
    tracked = np.sort(rng.choice(BURST, TRACKED, replace=False))
    offsets[query] = tracked[0]
    numbers = starts + offsets
    distant = np.flatnonzero(np.abs(numbers - numbers[query]) >= DISTANT_FRAMES)
    if not len(distant):
        # In the shortest clips only the far end is distant enough, seen from the end of its burst.
        end = 0 if starts[-1] - starts[query] < starts[query] - starts[0] else SEGMENTS - 1
        offsets[end] = 0 if end == 0 else BURST - 1
        distant = np.asarray([end])
        if abs(starts[end] + offsets[end] - numbers[query]) < DISTANT_FRAMES:
            tracked = np.arange(TRACKED) + (BURST - TRACKED if end == 0 else 0)
            offsets[query] = tracked[0]
    return offsets, tracked, query, int(rng.choice(distant))


class VideoBatches:
    """Random batches of the clips of one kind, every source as often as another.

    Args:
        held_out: draw from the clips that only measure.
        count: videos per batch (N).
        augment: mirror and recolour, each video as a whole.

    Raises:
        StoreError: fewer clips of that kind than `count`.
    """

    def __init__(self, bursts: Bursts, count: int, seed: int, *, held_out: bool = False, augment: bool = True) -> None:
        chosen = np.flatnonzero(bursts.held_out == held_out)
        if len(chosen) < count:
            kind = "held-out" if held_out else "training"
            raise StoreError(f"{len(chosen)} {kind} clips, a batch needs {count}: add clips or lower --batch")
        self.bursts, self.count, self.augment = bursts, count, augment
        self.rng = np.random.default_rng(seed)
        sources = np.asarray([bursts.sources[i] for i in chosen])
        share = {name: 1 / (len(set(sources)) * np.count_nonzero(sources == name)) for name in sources}
        self._chosen, self._weights = chosen, np.asarray([share[name] for name in sources])

    def draw(self) -> VideoBatch:
        """The next batch."""
        videos = self.rng.choice(self._chosen, self.count, replace=False, p=self._weights)
        rows = [self._video(int(video)) for video in videos]
        return VideoBatch(
            *(torch.stack([row[i] for row in rows]) for i in range(3)),
            *(torch.tensor([row[i] for row in rows]) for i in (3, 4)),
        )

    def _video(self, video: int) -> tuple[Tensor, Tensor, Tensor, int, int]:
        offsets, tracked, query, other = choose_frames(self.bursts.starts[video], self.rng)
        every = np.arange(SEGMENTS)
        stored = self.bursts.frames[video]
        frames = np.concatenate([stored[every, offsets], stored[query, tracked[1:]]])
        maps = self.bursts.maps[video][every, offsets]
        images, initial = as_tensors(frames, maps)
        if self.augment:
            images, initial = change(images, initial, self.rng)
        images = normalised(images)
        return images[:SEGMENTS], initial, images[SEGMENTS:], query, other


class FrameBatches:
    """Random single frames of training clips and photographs, every source as often as another.

    Args:
        stills: photographs as one more source, None without.
        count: frames per batch.
    """

    def __init__(self, bursts: Bursts, stills: Stills | None, count: int, seed: int) -> None:
        chosen = np.flatnonzero(~bursts.held_out)
        names = sorted({bursts.sources[i] for i in chosen})
        self._clips = [np.asarray([i for i in chosen if bursts.sources[i] == name]) for name in names]
        self._bursts, self._stills, self._count = bursts, stills, count
        self._rng = np.random.default_rng(seed)

    def draw(self, stills_only: bool = False) -> tuple[Tensor, Tensor]:
        """Images float32 [count, 3, H, W], normalised RGB, and their initial maps [count, 1, H/4, W/4]."""
        rows = [self._frame(stills_only) for _ in range(self._count)]
        images, maps = (torch.cat([row[i] for row in rows]) for i in (0, 1))
        return normalised(images), maps

    def _frame(self, still: bool) -> tuple[Tensor, Tensor]:
        rng, sources = self._rng, len(self._clips) + (self._stills is not None)
        source = sources - 1 if still else int(rng.integers(sources))
        if source == len(self._clips):
            assert self._stills is not None
            place: tuple[int, ...] = (int(rng.integers(len(self._stills.images))),)
            images, maps = self._stills.images, self._stills.maps
        else:
            place = (int(rng.choice(self._clips[source])), int(rng.integers(SEGMENTS)), int(rng.integers(BURST)))
            images, maps = self._bursts.frames, self._bursts.maps
        return change(*as_tensors(images[place][None], maps[place][None]), rng)


def as_tensors(frames: np.ndarray, maps: np.ndarray) -> tuple[Tensor, Tensor]:
    """Whole frames uint8 [M, h, w, 3] at the size the network sees, [M, 3, *SEEN] in [0, 1], and maps [., 1, ...].

    Whole, because initial maps are made from the border of the frame: a window does not show where that is.
    """
    grid = (SEEN[0] // STRIDE, SEEN[1] // STRIDE)
    small = np.stack([cv2.resize(frame, SEEN[::-1], interpolation=cv2.INTER_AREA) for frame in frames])
    shrunk = np.stack([cv2.resize(one, grid[::-1], interpolation=cv2.INTER_AREA) for one in maps])
    images = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(shrunk > 127).float()[:, None]


def change(images: Tensor, maps: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same mirroring and colour change for all images [M, 3, H, W] in [0, 1], and their maps."""
    if rng.random() < 0.5:
        images, maps = images.flip(3), maps.flip(3)
    gain = torch.from_numpy(rng.uniform(1 - _COLOUR_GAIN, 1 + _COLOUR_GAIN, (3, 1, 1)).astype(np.float32))
    return (images * gain).clamp(0, 1), maps


def normalised(images: Tensor) -> Tensor:
    """Images [..., 3, H, W] in [0, 1] as networks here are fed."""
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
