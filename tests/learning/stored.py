"""A selection store written row by row, as docs/store.md describes it, and a tiny network to retrain on it."""

import re
import sqlite3
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from learning.synthesis.shapes import shape_cutout, surface
from tests.conftest import REPOSITORY

SECOND_NS = 1_000_000_000
SIZE = (256, 448)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Previous and current frame uint8 [256, 448, 3] BGR of a shape that moves over a surface, and its mask."""
    rgba = shape_cutout(rng, None)
    background = surface(rng, SIZE, None)
    y, x = int(rng.integers(0, SIZE[0] - 176)), int(rng.integers(12, SIZE[1] - 188))
    shift = int(rng.choice([-9, -6, 6, 9]))
    frames, mask = [], np.zeros(SIZE, bool)
    for step in (shift, 0):
        frame, mask = background.copy(), np.zeros(SIZE, bool)
        inside = rgba[..., 3] > 127
        mask[y : y + 176, x + step : x + step + 176] = inside
        frame[mask] = rgba[..., :3][inside]
        frames.append(frame)
    return frames[0], frames[1], mask


def create(path: Path) -> sqlite3.Connection:
    """An empty store, made with the statements of the contract."""
    page = (REPOSITORY / "docs" / "store.md").read_text(encoding="utf-8")
    statements = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert statements is not None
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA application_id={0x556E5365}")
    connection.execute("PRAGMA user_version=1")
    connection.executescript(statements[1])
    connection.execute("INSERT INTO session VALUES (1, 'abc', 0, '0')")
    connection.execute("INSERT INTO model VALUES (1, 'd0f6', 'compact')")
    return connection


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def add_frame(
    connection: sqlite3.Connection,
    number: int,
    time_ns: int,
    pictures: tuple[np.ndarray | None, np.ndarray],
    masks: list[np.ndarray],
    doubt: np.ndarray | None = None,
    *,
    source: str = "cam",
    exact: bool = True,
    loss_bound: float = 0.0,
    age: int = 9,
    score: float = 0.4,
    foreground: float = 0.95,
    usefulness: float = 0.5,
) -> int:
    """One frame (previous picture, picture) with its masks bool [256, 448]; doubt uint8 [64, 112]. Returns its id."""
    previous, current = pictures
    grid = np.zeros((64, 112), np.uint8) if doubt is None else doubt
    row = {
        "session_id": 1,
        "model_id": 1,
        "generation": 0,
        "source": source,
        "number": number,
        "capture_ns": time_ns,
        "width": SIZE[1],
        "height": SIZE[0],
        "jpeg": _jpeg(current),
        "previous_jpeg": None if previous is None else _jpeg(previous),
        "previous_capture_ns": None if previous is None else time_ns - SECOND_NS // 30,
        "doubt": cv2.imencode(".png", grid)[1].tobytes(),
        "exact": int(exact),
        "lag": 3,
        "loss_bound": loss_bound,
        "usefulness": usefulness,
        "bytes": 1000,
    }
    names = ", ".join(row)
    frame = connection.execute(
        f"INSERT INTO frame ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
    ).lastrowid
    for object_id, mask in enumerate(masks, start=1):
        counts = rle.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        x, y, w, h = (int(v) for v in cv2.boundingRect(mask.astype(np.uint8)))
        values = (frame, object_id, counts, x, y, w, h, int(mask.sum()), score, foreground, age, 0.5, 0.2)
        connection.execute(
            "INSERT INTO selection (frame_id, object_id, rle, x, y, width, height, area, score, foreground, age,"
            " novelty, uncertainty) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    assert frame is not None
    return frame


def fill(path: Path, frames: int, seed: int = 0, apart_s: float = 4.0) -> None:
    """A store of moving shapes, one frame every few seconds."""
    rng = np.random.default_rng(seed)
    connection = create(path)
    for number in range(frames):
        previous, current, mask = scene(rng)
        add_frame(connection, number, int(number * apart_s * SECOND_NS), (previous, current), [mask])
    connection.commit()
    connection.close()


def tiny_checkpoint(path: Path, seed: int = 0) -> None:
    """A model.pt of a network small enough for a test, with random weights."""
    import torch

    from learning.networks.compact import Compact, CompactConfig
    from learning.pretrain import model_content, save_whole

    torch.manual_seed(seed)
    config = CompactConfig(stem=4, motion=8, widths=(8, 12, 12, 16), depths=(0, 0, 0), decoder=(12, 8, 8))
    network = Compact(config)
    assert asdict(network.config) == asdict(config)
    save_whole(model_content(network, {"step": 0, "minutes": 0.0, "seed": seed}), path)
