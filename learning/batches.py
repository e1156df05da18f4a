"""Training batches: crops, flips, colour changes and modality dropout over shards of samples."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch

from engine.perceive.motion import FEATURE_CHANNELS, FEATURE_SIZE
from learning.synthesis.sample import SIZE, Kind, Origin
from learning.synthesis.shards import Shards

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Normalisation of the network's image input, RGB: (pixel / 255 - MEAN) / STD."""

INSTANCES = 8
"""Instances of one image that train their masks; a crowded pile shows a random choice of them."""

CELLS = 2
"""Kernels trained per instance: its centre and one random cell."""

_MIN_AREA = 8.0
"""Cells of a mask at stride 4 below which an instance is too small to be learned."""

_NO_OBJECT = {
    Origin.COMPOSITE: 1.0,
    Origin.PEOPLE: 0.3,
    Origin.COCO: 0.0,
    Origin.ANIMALS: 0.3,
    Origin.PILE: 1.0,
    Origin.CLIP: 0.0,
    # What is doubted there is ignored, and the rest was seen in a video.
    Origin.STORE: 0.6,
}
"""Trust in unlabelled pixels being free of objects."""

_HIDDEN = 0.12
"""Share of samples whose motion is hidden, so that the network knows objects by their looks, too."""

_HIDDEN_STORE = 0.4
"""The same for selections: the motion was there when they were found, it is the picture that has to teach."""


@dataclass
class Batch:
    """Tensors of one step; h, w are the crop, everything else is at stride 4 or 8.

    Attributes:
        image: float32 [B, 3, h, w], normalised RGB.
        motion: float32 [B, 5, h/2, w/2].
        binary: float32 [B, 1, h/4, w/4], foreground share.
        binary_weight: float32 [B, 1, h/4, w/4], 0 where ignored.
        heat: float32 [B, 1, h/8, w/8], centre target.
        heat_weight: float32 [B, 1, h/8, w/8].
        masks: float32 [B, INSTANCES, h/4, w/4].
        cells: int64 [B, INSTANCES, CELLS], flat indices on the 1/8 grid.
        valid: float32 [B, INSTANCES].
        ids: int64 [B, h/4, w/4], instance ids for the embedding, -1 where ignored.
    """

    image: torch.Tensor
    motion: torch.Tensor
    binary: torch.Tensor
    binary_weight: torch.Tensor
    heat: torch.Tensor
    heat_weight: torch.Tensor
    masks: torch.Tensor
    cells: torch.Tensor
    valid: torch.Tensor
    ids: torch.Tensor


def _table(rng: np.random.Generator | None) -> np.ndarray:
    """Table float32 [256, 1, 3] from RGB bytes to network input, with a random colour change on the way."""
    levels = np.repeat(np.linspace(0, 1, 256)[:, None], 3, axis=1)
    if rng is not None:
        gamma, gain, lift = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.15)), rng.normal(0, 0.03)
        levels = np.clip(levels**gamma * gain * np.exp(rng.normal(0, 0.06, 3)) + lift, 0, 1)
    return ((levels - MEAN) / STD).astype(np.float32)[:, None]


def _quarter(a: np.ndarray) -> np.ndarray:
    """Mean of every 2x2 block, float32."""
    return (a[::2, ::2] + a[::2, 1::2] + a[1::2, ::2] + a[1::2, 1::2]) * np.float32(0.25)


def targets(
    ids: np.ndarray, kinds: np.ndarray, origin: Origin, has_motion: bool, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Targets of one crop from half-size ids uint8 [h/2, w/2]; fields of `Batch` without the batch axis.

    With motion, only moving objects are foreground and standing ones are left open; without, every
    labelled object is foreground. A composite whose motion is hidden teaches masks only: nothing in it
    says what moved.
    """
    h, w = ids.shape[0] // 2, ids.shape[1] // 2
    kind = kinds[ids]
    hidden = origin == Origin.COMPOSITE and not has_motion
    positive = (kind == Kind.MOVING) if has_motion else (kind == Kind.MOVING) | (kind == Kind.STATIC)
    trust = 0.0 if hidden else _NO_OBJECT[origin]
    weight = np.ones_like(kind, np.float32)
    if not has_motion:
        weight[~positive] = trust
        weight[kind == Kind.DISTRACTOR] = 0
    else:
        weight[kind == Kind.STATIC] = 0
    weight[kind == Kind.UNSURE] = 0
    if hidden:
        weight[:] = 0

    out = {
        "binary": _quarter(positive.astype(np.float32))[None],
        "binary_weight": _quarter(weight)[None],
        "heat": np.zeros((1, h // 2, w // 2), np.float32),
        "masks": np.zeros((INSTANCES, h, w), np.float32),
        "cells": np.zeros((INSTANCES, CELLS), np.int64),
        "valid": np.zeros(INSTANCES, np.float32),
    }
    unclear = (kind == Kind.UNSURE) | (kind == Kind.DISTRACTOR)
    labelled = (kind == Kind.MOVING) | (kind == Kind.STATIC)
    heat_weight = np.where(labelled, np.float32(1), np.float32(trust))
    heat_weight[unclear] = 0
    heat_weight = _quarter(_quarter(heat_weight))
    coarse_ids = ids[::2, ::2].astype(np.int64)
    coarse_ids[unclear[::2, ::2]] = -1
    if trust < 0.3:
        coarse_ids[coarse_ids == 0] = -1
    out["ids"] = coarse_ids
    _add_instances(out, ids, kinds, heat_weight, rng)
    out["heat_weight"] = heat_weight[None]
    return out


def _add_instances(
    out: dict[str, np.ndarray], ids: np.ndarray, kinds: np.ndarray, heat_weight: np.ndarray, rng: np.random.Generator
) -> None:
    """Fill heat, masks, cells and valid of `targets` with a random choice of the instances of ids uint8 [h/2, w/2].

    Args:
        heat_weight: float32 [h/8, w/8]; becomes 0 on instances too small to be learned and 1 on every centre.
    """
    present = [int(v) for v in np.unique(ids) if kinds[v] in (Kind.MOVING, Kind.STATIC)]
    rng.shuffle(present)
    width = out["heat"].shape[2]
    slot = 0
    for value in present:
        mask = _quarter((ids == value).astype(np.float32))
        area = mask.sum()
        if area < _MIN_AREA:
            heat_weight[_quarter(mask) > 0] = 0
            continue
        cells = _quarter(mask)
        y, x = np.nonzero(cells > 0.4) if (cells > 0.4).any() else np.nonzero(cells >= cells.max())
        middle = np.argmin((y - y.mean()) ** 2 + (x - x.mean()) ** 2)
        cy, cx = int(y[middle]), int(x[middle])
        _add_peak(out["heat"][0], cy, cx, float(np.clip(0.09 * np.sqrt(area), 0.6, 3.0)))
        heat_weight[cy, cx] = 1
        if slot < INSTANCES:
            pick = int(rng.integers(0, len(y)))
            out["masks"][slot] = mask
            out["cells"][slot] = (cy * width + cx, int(y[pick]) * width + int(x[pick]))
            out["valid"][slot] = 1
            slot += 1


def _add_peak(heat: np.ndarray, cy: int, cx: int, sigma: float) -> None:
    """Raise float32 [h, w] to a Gaussian about one cell, which becomes 1."""
    y0, y1, x0, x1 = max(cy - 9, 0), min(cy + 10, heat.shape[0]), max(cx - 9, 0), min(cx + 10, heat.shape[1])
    yy, xx = np.ogrid[y0:y1, x0:x1]
    bump = np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * sigma**2)).astype(np.float32)
    np.maximum(heat[y0:y1, x0:x1], bump, out=heat[y0:y1, x0:x1])


class Batches:
    """Endless shuffled batches, or one pass over everything without augmentation.

    Args:
        shards: synthetic samples.
        real: sources of frames the engine labelled; drawn from in proportion to the root of their size, so
            that a large source does not drown a small one.
        real_share: how many of a random batch come from `real`.
        crop: height, width of the training crops, multiples of 32.
    """

    def __init__(
        self,
        shards: Shards,
        size: int,
        crop: tuple[int, int],
        seed: int,
        real: Sequence[Shards] = (),
        real_share: float = 0.0,
    ) -> None:
        self.shards, self._real, self._real_share = shards, real, real_share
        roots = np.sqrt([len(source) for source in real])
        self._source_shares = roots / roots.sum() if len(real) else roots
        self.size, self.crop = size, crop
        self._seed, self._rng = seed, np.random.default_rng(seed)

    def _one(self, shards: Shards, index: int, crop: tuple[int, int] | None) -> dict[str, np.ndarray]:
        """One sample, cropped to (h, w) and changed at random, or as it is."""
        rng = self._rng
        image, stored, ids, kinds, origin = shards[index]
        motion = np.zeros((FEATURE_CHANNELS, *FEATURE_SIZE), np.float32) if stored is None else stored
        has_motion = stored is not None
        if crop is not None:
            if has_motion and rng.random() < (_HIDDEN_STORE if origin == Origin.STORE else _HIDDEN):
                motion[:], has_motion = 0, False
            elif has_motion and rng.random() < 0.06:
                image = np.full_like(image, 110) if rng.random() < 0.5 else cv2.GaussianBlur(image, (0, 0), 4)
            h, w = crop
            y, x = (int(rng.integers(0, (a - b) // 4 + 1)) * 4 for a, b in zip(SIZE, crop, strict=True))
            image, motion = image[y : y + h, x : x + w], motion[:, y // 2 : (y + h) // 2, x // 2 : (x + w) // 2]
            ids = ids[y // 2 : (y + h) // 2, x // 2 : (x + w) // 2]
            if rng.random() < 0.5:
                image, ids, motion = image[:, ::-1], ids[:, ::-1], motion[:, :, ::-1]
                motion[0::2][:2] *= -1
            if rng.random() < 0.08:
                image = np.repeat(image[..., 1:2], 3, axis=2)
        fields = targets(np.ascontiguousarray(ids), kinds, origin, has_motion, rng)
        fields["image"] = cv2.LUT(np.ascontiguousarray(image), _table(None if crop is None else rng))
        fields["motion"] = motion
        return fields

    @staticmethod
    def _stack(samples: list[dict[str, np.ndarray]]) -> Batch:
        fields = {n: torch.from_numpy(np.stack([s[n] for s in samples])) for n in samples[0]}
        fields["image"] = fields["image"].permute(0, 3, 1, 2)
        return Batch(**fields)

    def draw(self, number: int | None = None) -> Batch:
        """One random batch: the next one, or the one of a number, which is always the same."""
        if number is not None:
            self._rng = np.random.default_rng([self._seed, number])
        samples = []
        # Read once: the trainer changes them from another thread, and a batch has one shape.
        crop, size = self.crop, self.size
        for _ in range(size):
            shards = self.shards
            if self._real and self._rng.random() < self._real_share:
                shards = self._real[int(self._rng.choice(len(self._real), p=self._source_shares))]
            samples.append(self._one(shards, int(self._rng.integers(0, len(shards))), crop))
        return self._stack(samples)

    def once(self) -> Iterator[Batch]:
        """Every sample once, full size, in order; the same instances of a crowd every time."""
        self._rng = np.random.default_rng(self._seed)
        for start in range(0, len(self.shards), self.size):
            yield self.pick(range(start, min(start + self.size, len(self.shards))))

    def pick(self, indices: Sequence[int]) -> Batch:
        """The samples of these indices, full size and unchanged."""
        return self._stack([self._one(self.shards, i, None) for i in indices])


class Drawing(Protocol):
    """Where batches come from."""

    def draw(self) -> Batch:
        """The next batch."""


class Prefetch:
    """Draws batches on a second thread so that a step never waits for the disk."""

    def __init__(self, batches: Drawing) -> None:
        self._batches = batches
        self._ready: queue.Queue[Batch] = queue.Queue(maxsize=3)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        while not self._stop.is_set():
            try:
                batch = self._batches.draw()
            except BaseException as error:
                self._error = error
                return
            while not self._stop.is_set():
                try:
                    self._ready.put(batch, timeout=0.2)
                    break
                except queue.Full:
                    continue

    def next(self) -> Batch:
        """The next batch; raises what went wrong in drawing it."""
        while True:
            try:
                return self._ready.get(timeout=0.5)
            except queue.Empty:
                if self._error is not None:
                    raise self._error from None

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()
