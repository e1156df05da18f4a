"""Small synthetic videos for the selection."""

import numpy as np
import pytest

from engine.percepts import Percepts


def random_graph(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of mixed sign (sometimes rounded, so that zeros and ties occur) and random conflicts."""
    weights = rng.normal(loc=rng.uniform(-1, 1), size=n)
    if rng.random() < 0.3:
        weights = np.round(weights)
    conflicts = np.triu(rng.random((n, n)) < rng.choice([0.0, 0.1, 0.3, 0.6, 1.0]), 1)
    return weights, conflicts | conflicts.T


def random_video(rng: np.random.Generator, frames: int, n: int, shape: tuple[int, int] = (12, 16)) -> list[Percepts]:
    """Percepts with blobs that drift, a background map that sees some of them, and a flow to match."""
    h, w = shape
    y, x = np.mgrid[0:h, 0:w]
    centres = rng.uniform([2, 2], [w - 2, h - 2], size=(n, 2))
    speeds = rng.uniform(-1.5, 1.5, size=(n, 2))
    radii = rng.uniform(1.5, 4.5, size=n)
    seen = rng.random(n) < 0.6
    camera = rng.uniform(-1, 1, size=2)
    video = []
    for t in range(frames):
        count = n if t % 4 else max(0, n - int(rng.integers(0, 3)))
        positions = centres + t * speeds + rng.normal(size=(n, 2)) * 0.3
        masks = np.array(
            [np.hypot(x - positions[i, 0], y - positions[i, 1]) < radii[i] for i in range(count)], bool
        ).reshape(count, h, w)
        background = np.clip(rng.normal(0.7, 0.2, size=shape), 0, 1)
        residual = rng.normal(0, 0.2, size=(2, h, w))
        for i in range(count):
            if seen[i]:
                background[masks[i]] = np.clip(rng.normal(0.25, 0.2, size=int(masks[i].sum())), 0, 1)
            residual[:, masks[i]] -= speeds[i][:, None]
        residual = residual.astype(np.float32)
        flow = residual + camera.astype(np.float32)[:, None, None]
        video.append(
            Percepts(
                masks=masks,
                scores=np.ones(count, np.float32),
                background=background.astype(np.float32),
                embedding=None,
                flow=flow if t else None,
                residual=residual if t else None,
                logits=np.where(masks, 1.0, -1.0).astype(np.float32),
            )
        )
    return video


@pytest.fixture
def graph():
    """`random_graph`."""
    return random_graph


@pytest.fixture
def video():
    """`random_video`."""
    return random_video
