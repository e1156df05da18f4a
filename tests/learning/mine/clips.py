"""Small recordings of a textured patch that moves over texture, and the rows a store of them holds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet

from tests.conftest import REPOSITORY

SIZE = (96, 160)


def pictures(frames: int, seed: int) -> list[np.ndarray]:
    """Frames uint8 [96, 160, 3] BGR; every seed has another patch that moves otherwise."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(60, 140, (24, 40, 3), np.uint8), SIZE[::-1])
    patch = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (36, 36), interpolation=cv2.INTER_NEAREST)
    out = []
    for index in range(frames):
        x = 40 + round(38 * np.sin(index / 5 + seed))
        y = 30 + round(24 * np.cos(index / 7 + seed))
        image = ground.copy()
        image[y : y + 36, x : x + 36] = patch
        out.append(image)
    return out


def write_video(path: Path, frames: int, seed: int) -> Path:
    """An mp4 of `pictures`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, SIZE[::-1])
    for image in pictures(frames, seed):
        writer.write(image)
    writer.release()
    return path


def rows(store: Path) -> list[dict[str, Any]]:
    """Every row of every shard, in an order that does not depend on when it was written."""
    found: list[dict[str, Any]] = []
    for shard in (store / "shards").glob("*.parquet"):
        found += pyarrow.parquet.read_table(shard).to_pylist()
    return sorted(found, key=lambda row: (row["session"], row["source"], row["number"]))


def command(*arguments: object) -> subprocess.Popen[bytes]:
    """`python -m learning.mine` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "learning.mine", *map(str, arguments)]
    return subprocess.Popen(line, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
