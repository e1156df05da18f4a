"""Network inputs for calibration and for the parity check."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError
from engine.perceive.motion import FEATURE_CHANNELS, FEATURE_SIZE, fit_features
from learning.batches import MEAN, STD
from learning.synthesis.drawn import drawn_sample
from learning.synthesis.generate import pair_features
from learning.synthesis.sample import SIZE
from learning.synthesis.shards import Shards

_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


@dataclass(frozen=True)
class NetworkInput:
    """One frame for the network: image float32 [1, 3, h, w], motion float32 [1, 5, h/2, w/2]."""

    image: np.ndarray
    motion: np.ndarray

    def feeds(self) -> dict[str, np.ndarray]:
        """Input names to arrays."""
        return {"image": self.image, "motion": self.motion}


def motion_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the motion input of a network whose image input is `size`."""
    return size[0] // 2, size[1] // 2


def network_input(image: np.ndarray, motion: np.ndarray | None, size: tuple[int, int] = SIZE) -> NetworkInput:
    """Inputs of a uint8 [256, 448, 3] RGB image and its float32 [5, 128, 224] features (None: no motion).

    Args:
        size: (h, w) of the network; both are brought to it as the engine does.
    """
    if image.shape[:2] != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    scaled = (image.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    features = np.zeros((FEATURE_CHANNELS, *FEATURE_SIZE), np.float32) if motion is None else motion
    features = fit_features(features, motion_size(size))
    return NetworkInput(np.ascontiguousarray(scaled.transpose(2, 0, 1)[None]), features[None])


def shard_frames(folder: Path, prefix: str, count: int, seed: int, size: tuple[int, int] = SIZE) -> list[NetworkInput]:
    """A random choice of stored samples for a network of `size`.

    Raises:
        StoreError: the folder holds no such shards.
    """
    shards = Shards(folder, prefix)
    chosen = np.random.default_rng(seed).permutation(len(shards))[:count]
    return [network_input(shards[int(i)][0], shards[int(i)][1], size) for i in chosen]


def clip_frames(folder: Path, count: int, seed: int, size: tuple[int, int] = SIZE) -> list[NetworkInput]:
    """Random frames of the video files under a folder, three of four with the motion since the frame before.

    Raises:
        StoreError: the folder holds no video that can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _VIDEOS)
    rng = np.random.default_rng(seed)
    frames: list[NetworkInput] = []
    for number in range(3 * count if paths else 0):
        capture = cv2.VideoCapture(str(paths[int(rng.integers(len(paths)))]))
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(rng.integers(max(1, length - 1))))
        pair = [capture.read()[1] for _ in range(2)]
        capture.release()
        if any(image is None for image in pair):
            continue
        previous, current = (cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA) for image in pair)
        motion = pair_features(previous, current) if number % 4 else None
        frames.append(network_input(cv2.cvtColor(current, cv2.COLOR_BGR2RGB), motion, size))
        if len(frames) == count:
            return frames
    raise StoreError(f"{folder}: {len(frames)} of {count} frames could be read; give a folder of video files")


def drawn_frames(count: int, seed: int, size: tuple[int, int] = SIZE) -> Iterator[NetworkInput]:
    """Moving procedural shapes over procedural surfaces: needs no data, looks less real."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        sample = drawn_sample(rng, number)
        yield network_input(sample.image, sample.motion, size)
