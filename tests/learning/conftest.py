"""A tiny picture collection in the layout of the training data, and samples rendered from it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from learning.footage import is_held_out
from learning.synthesis.assets import Library, build_library
from learning.synthesis.generate import make_sample
from learning.synthesis.shapes import shape_cutout, surface
from learning.synthesis.shards import write_shard


def _masked_picture(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    image, ids = surface(rng, size, None), np.zeros(size, np.uint8)
    for value in range(1, int(rng.integers(2, 4))):
        rgba = shape_cutout(rng, None)
        y, x = int(rng.integers(0, size[0] - 176)), int(rng.integers(0, size[1] - 176))
        inside = rgba[..., 3] > 127
        image[y : y + 176, x : x + 176][inside] = rgba[..., :3][inside]
        ids[y : y + 176, x : x + 176][inside] = value
    return image, ids


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures per folder, one clip to train on and one, wholly white, that is kept apart."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("pictures")
    for name, size in (("people", (300, 220)), ("coco", (240, 360)), ("animals", (260, 320))):
        (root / name / "images").mkdir(parents=True)
        (root / name / "instances").mkdir()
        for number in range(5):
            image, ids = _masked_picture(rng, size)
            cv2.imwrite(str(root / name / "images" / f"{number}.jpg"), image)
            cv2.imwrite(str(root / name / "instances" / f"{number}.png"), ids)
    for name in ("photos", "textures"):
        (root / name).mkdir()
        for number in range(5):
            cv2.imwrite(str(root / name / f"{number}.jpg"), surface(rng, (240, 360), None))
    (root / "clips" / "general").mkdir(parents=True)
    wide = surface(rng, (192, 480), cv2.imread(str(root / "coco" / "images" / "0.jpg")))
    names = [f"pan_{letter}" for letter in "abcdefghijklmnopqrstuvwxyzabc"]
    kept_apart = next(name for name in names if is_held_out(Path(f"{name}.mp4")))
    for name, film in (("pan", wide), (kept_apart, np.full_like(wide, 255))):
        path = root / "clips" / "general" / f"{name}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 192))
        for step in range(60):
            writer.write(np.ascontiguousarray(film[:, step : step + 320]))
        writer.release()
    return root


@pytest.fixture(scope="session")
def library(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The prepared collection."""
    return build_library(picture_folder, tmp_path_factory.mktemp("library"), seed=0, limit=5)


@pytest.fixture(scope="session")
def shard_folder(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training samples and 8 held-out ones."""
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "train_0000.shard", 48, (make_sample(library, 0, i) for i in range(48)))
    write_shard(folder / "held_0000.shard", 8, (make_sample(library, 0, i, held_out=True) for i in range(8)))
    return folder
