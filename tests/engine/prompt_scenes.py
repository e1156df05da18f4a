"""Small made-up percepts: coloured discs over a grainy ground, with exact flow."""

import numpy as np

from engine.percepts import Percepts

H, W = 40, 70
FRAME_SIZE = (80, 140)
Disc = tuple[float, float, int, tuple[int, int, int]]
"""(y, x, radius, BGR); later ones hide earlier ones."""


def disc(y: float, x: float, radius: float) -> np.ndarray:
    """bool [H, W]."""
    rows, columns = np.mgrid[0:H, 0:W]
    inside: np.ndarray = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return inside


def visible(discs: list[Disc]) -> list[np.ndarray]:
    """bool [H, W] of each disc, without what later ones hide."""
    masks = [disc(y, x, radius) for y, x, radius, _ in discs]
    return [mask & ~np.any([np.zeros((H, W), bool), *masks[i + 1 :]], axis=0) for i, mask in enumerate(masks)]


def percepts(
    discs: list[Disc],
    before: list[Disc] | None = None,
    proposed: list[int] | None = None,
    embedding: bool = True,
    colours: bool = True,
) -> Percepts:
    """What an ideal perception says of a frame.

    Args:
        discs: what is there.
        before: the same discs in the previous frame, for the flow; None for the first frame of a shot.
        proposed: which discs the network proposes; all by default.
    """
    ground = np.random.default_rng(0).integers(90, 120, (H, W, 1))
    image = np.repeat(ground, 3, axis=2).astype(np.uint8)
    field = np.zeros((4, H, W), np.float32)
    flow = np.zeros((2, H, W), np.float32)
    shown = visible(discs)
    for i, (mask, (y, x, _, colour)) in enumerate(zip(shown, discs, strict=True)):
        image[mask] = colour
        field[:, mask] = np.resize(np.eye(4)[i % 4], 4)[:, None]
        if before is not None:
            flow[:, mask] = np.array([before[i][1] - x, before[i][0] - y])[:, None]
    masks = [shown[i] for i in (range(len(discs)) if proposed is None else proposed) if shown[i].any()]
    stacked = np.array(masks, bool).reshape(-1, H, W)
    union = stacked.any(axis=0)
    return Percepts(
        masks=stacked,
        scores=np.full(len(stacked), 0.8, np.float32),
        background=np.where(union, 0.1, 0.9).astype(np.float32),
        embedding=field if embedding else None,
        flow=None if before is None else flow,
        residual=None if before is None else flow,
        logits=np.where(stacked, 3.0, -3.0).astype(np.float32),
        image=image if colours else None,
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max((a | b).sum(), 1))
