"""Frames, certified scenes and rows that are cheap to make and known exactly."""

import time

import numpy as np

from engine.evidence import Evidence
from engine.frame import Frame
from engine.record.rows import FrameRow, SelectionRow
from engine.rle import encode_rle
from engine.scene import CommitInfo, Object, Scene

SIZE = (48, 80)
GRID = (12, 20)


def make_frame(index: int, source: str = "cam", size: tuple[int, int] = SIZE) -> Frame:
    """A frame whose picture tells its number, and differs from that of every other."""
    # Blocks of sixteen pixels, as JPEG likes them.
    blocks = np.random.default_rng(index).integers(0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8)
    return Frame(blocks.repeat(16, axis=0).repeat(16, axis=1), index, 1_000_000_000 * (index + 1), source)


def make_final(index: int, source: str = "cam", novelty: float = 0.5, **changes) -> Scene:
    """A certified final scene with one object, 8x16 grid cells large, embedded at `embedding`."""
    size = changes.pop("size", SIZE)
    embedding = np.asarray(changes.pop("embedding", [float(index), 0.0]), np.float32)
    scale = size[0] // GRID[0]
    masks = np.zeros((2, *GRID), bool)
    masks[0, 2:10, 2:18] = True
    masks[1, 0:2, 0:4] = True
    background = np.where(masks[0], 0.1, 0.95).astype(np.float32)
    background[11, 19] = 0.3
    labels = np.kron(masks[0], np.ones((scale, scale))).astype(np.uint16) * 3
    box = (2 * scale, 2 * scale, 18 * scale, 10 * scale)
    item = Object(7, 3, 0.4, box, int((labels > 0).sum()), 12, novelty, 0.8, 0.3)
    flow = np.full((2, *GRID), 0.75, np.float32)
    flow[1] = 1.0
    evidence = Evidence(
        masks=masks,
        scores=np.array([0.4, 0.6], np.float32),
        members=(0,),
        ids=(7,),
        background=background,
        flow=flow,
        residual=flow * 2,
        embeddings={7: embedding},
        model_name="tiny",
        model_hash="c0ffee",
        generation=2,
    )
    fields = {
        "labels": labels,
        "objects": (item,),
        "t_capture_ns": 1_000_000_000 * (index + 1),
        "commit": CommitInfo(True, 2, 0.0, 0.25),
        "evidence": evidence,
    }
    return Scene(index, source=source, **({"kind": "final"} | fields | changes))


def make_rows(
    number: int, usefulness: float = 0.5, jpeg_bytes: int = 1000, selections: int = 2
) -> tuple[FrameRow, list[SelectionRow]]:
    """Rows as a recorder would write them, their pictures noise of a given size."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SIZE, bool)
    mask[4:20, 8:40] = True
    frame = FrameRow(
        model_name="tiny",
        model_hash="c0ffee",
        generation=1,
        source="cam",
        number=number,
        capture_ns=time.time_ns(),
        pts_ns=None,
        width=SIZE[1],
        height=SIZE[0],
        jpeg=rng.bytes(jpeg_bytes),
        previous_jpeg=None,
        previous_capture_ns=None,
        doubt=rng.bytes(50),
        flow_px=None,
        exact=True,
        lag=1,
        loss_bound=0.0,
        margin=None,
        usefulness=usefulness,
    )
    row = SelectionRow(1, encode_rle(mask), 8, 4, 32, 16, int(mask.sum()), 0.5, 0.9, 3, 0.2, 0.1, None, rng.bytes(64))
    return frame, [row] * selections
