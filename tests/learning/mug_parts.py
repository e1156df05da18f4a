"""A small network of MuG and clips drawn in memory."""

import numpy as np

from learning.mug.bursts import BURST, SEGMENTS, SIZE, STRIDE, Bursts
from learning.networks.mug import MugConfig

TINY = MugConfig(stem=4, widths=(4, 6, 8, 8), decoder=(8, 6), features=6, grid=(4, 6), estimator=(5, 4))


def drawn_bursts(training: int = 4, held_out: int = 2, seed: int = 0) -> Bursts:
    """Clips of a bright square wandering over a dark ground; the map is the square itself."""
    rng = np.random.default_rng(seed)
    count = training + held_out
    frames = rng.integers(0, 60, (count, SEGMENTS, BURST, *SIZE, 3)).astype(np.uint8)
    maps = np.zeros((count, SEGMENTS, BURST, SIZE[0] // STRIDE, SIZE[1] // STRIDE), np.uint8)
    for video in range(count):
        colour = rng.integers(150, 255, 3)
        y, x = int(rng.integers(4, 16)), int(rng.integers(4, 30))
        for segment in range(SEGMENTS):
            for number in range(BURST):
                column = x + segment + number // 2
                maps[video, segment, number, y : y + 10, column : column + 10] = 255
                inside = np.kron(maps[video, segment, number], np.ones((STRIDE, STRIDE), np.uint8)) > 0
                frames[video, segment, number][inside] = colour
    starts = np.tile(np.arange(SEGMENTS) * 10, (count, 1))
    return Bursts(
        frames=frames,
        maps=maps,
        starts=starts,
        names=[f"clip{i}" for i in range(count)],
        held_out=np.arange(count) >= training,
        sources=["robot" if i else "general" for i in range(count)],
    )
