"""What a worker process of `python -m learning.synthesis` does: a module of its own, for workers import by name."""

from pathlib import Path

import cv2

from learning.synthesis.assets import open_library
from learning.synthesis.generate import make_sample
from learning.synthesis.shards import write_shard


def render_shard(job: tuple[str, Path, Path, int, int, int]) -> int:
    """Render one shard: (prefix, library folder, shard path, seed, first index, count); returns the count."""
    prefix, assets, path, seed, start, count = job
    # One process per core already.
    cv2.setNumThreads(1)
    library = open_library(assets)
    held_out = prefix == "held"
    write_shard(path, count, (make_sample(library, seed, start + i, held_out) for i in range(count)))
    return count
