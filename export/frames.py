"""Network inputs for calibration and for the parity check."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.perceive.motion import FEATURE_CHANNELS, FEATURE_SIZE
from learning.batches import MEAN, STD
from learning.synthesis.camera import draw_camera, draw_parallax
from learning.synthesis.generate import pair_features
from learning.synthesis.render import Layer, Lens, Stage, render, similarity
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import shape_cutout, surface
from learning.synthesis.shards import Shards


@dataclass(frozen=True)
class NetworkInput:
    """One frame for the network: image float32 [1, 3, 256, 448], motion float32 [1, 5, 128, 224]."""

    image: np.ndarray
    motion: np.ndarray

    def feeds(self) -> dict[str, np.ndarray]:
        """Input names to arrays."""
        return {"image": self.image, "motion": self.motion}


def network_input(image: np.ndarray, motion: np.ndarray | None) -> NetworkInput:
    """Inputs of a uint8 [256, 448, 3] RGB image and its float32 [5, 128, 224] features (None: no motion)."""
    scaled = (image.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    features = np.zeros((FEATURE_CHANNELS, *FEATURE_SIZE), np.float32) if motion is None else motion
    return NetworkInput(np.ascontiguousarray(scaled.transpose(2, 0, 1)[None]), features[None])


def shard_frames(folder: Path, prefix: str, count: int, seed: int) -> list[NetworkInput]:
    """A random choice of stored samples.

    Raises:
        StoreError: the folder holds no such shards.
    """
    shards = Shards(folder, prefix)
    chosen = np.random.default_rng(seed).permutation(len(shards))[:count]
    return [network_input(shards[int(i)][0], shards[int(i)][1]) for i in chosen]


def drawn_frames(count: int, seed: int) -> Iterator[NetworkInput]:
    """Moving procedural shapes over procedural surfaces: needs no data, looks less real."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        camera = draw_camera(rng)
        stage = Stage(surface(rng, SIZE, None), np.eye(3), camera.matrix(), draw_parallax(rng, camera))
        for label in range(1, int(rng.integers(2, 6))):
            rgba = shape_cutout(rng, stage.canvas)
            corner = rng.uniform([-20, -20], [SIZE[1] - 100, SIZE[0] - 100])
            place = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1.0]])
            shift = (float(rng.normal(0, 5)), float(rng.normal(0, 3)))
            motion = similarity((SIZE[1] / 2, SIZE[0] / 2), shift, 0.0, 1.0)
            stage.layers.append(Layer(rgba, place, motion, label))
        previous, current, _ = render(stage, pair=True)
        lens = Lens.draw(rng)
        assert previous is not None
        current = lens.expose(current, rng)
        motion_features = pair_features(lens.expose(previous, rng), current) if number % 4 else None
        yield network_input(cv2.cvtColor(current, cv2.COLOR_BGR2RGB), motion_features)
