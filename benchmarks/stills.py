"""AP and AR on photographs: each image alone, no motion, one class that stands for all.

Layout: FOLDER/images/NAME.jpg and FOLDER/instances/NAME.png, gray ids, 0 is background.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.davis import read_ids, read_image
from benchmarks.footage import enlarged
from engine.config import EngineConfig
from engine.errors import SourceError, StoreError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver
from engine.pipeline import Pipeline
from engine.propose.candidates import propose
from engine.scene import Scene
from learning.average_precision import Answer, AveragePrecision
from streaming.overlay import draw_overlay


def still_paths(folder: Path, limit: int | None) -> list[tuple[Path, Path]]:
    """Images of a folder with their annotations, at most `limit`, evenly spaced over the sorted names.

    Raises:
        SourceError: another layout, nothing in it, or an image without annotation.
    """
    for name in ("images", "instances"):
        if not (folder / name).is_dir():
            raise SourceError(f"{folder}: no {name}/ (expected images/ and instances/)")
    images = sorted(p for p in (folder / "images").iterdir() if p.suffix in (".jpg", ".png"))
    if not images:
        raise SourceError(f"{folder / 'images'}: holds no .jpg or .png")
    if limit is not None and len(images) > limit:
        images = [images[i] for i in np.linspace(0, len(images) - 1, limit).round().astype(int)]
    pairs = [(path, folder / "instances" / f"{path.stem}.png") for path in images]
    for image, annotation in pairs:
        if not annotation.is_file():
            raise SourceError(f"{image}: no annotation {annotation.name} in {annotation.parent}")
    return pairs


def answers(image: np.ndarray, config: EngineConfig, network: Network) -> tuple[dict[str, Answer], Scene]:
    """What the engine says about one image it has seen nothing before.

    network: every mask of the network. candidates: what the selection chooses from, that is, network and
    foreground blobs without specks and duplicates. published: the masks of the final scene.
    """
    frame = Frame(image, 0, time.time_ns(), "still")
    raw = Perceiver(network, config.perceive).step(frame)
    candidates = propose(raw, config.propose)
    pipeline = Pipeline(config, network)
    scenes = [*pipeline.decide(frame, candidates), *pipeline.flush()]
    scene = next(scene for scene in scenes if scene.kind == "final")
    size = image.shape[:2]
    labels = [item.label for item in scene.objects]
    shown = np.stack([scene.labels == v for v in labels]) if labels else np.empty((0, *size), bool)
    return {
        "network": Answer(enlarged(raw.logits, size), raw.scores),
        "candidates": Answer(enlarged(candidates.logits, size), candidates.scores),
        "published": Answer(shown, np.array([item.score for item in scene.objects])),
    }, scene


def score_stills(
    folder: Path, config: EngineConfig, network: Network, limit: int | None, overlays: Path | None
) -> dict[str, Any]:
    """AP and AR of a folder for network, candidates and published masks (`answers`).

    Args:
        limit: at most so many images, evenly spaced.
        overlays: a folder to draw every image's published masks and its annotation into.

    Raises:
        SourceError: another layout, or an image that cannot be read.
        StoreError: an overlay cannot be written.

    Returns:
        counts, and per kind of masks the figures of `AveragePrecision`; None where nothing is annotated.
    """
    judges: dict[str, AveragePrecision] = {}
    pairs = still_paths(folder, limit)
    counts = {"instances": 0, "published": 0}
    for path, annotation in pairs:
        image, truth = read_image(path), read_ids(annotation)
        if truth.shape != image.shape[:2]:
            raise SourceError(f"{annotation}: {truth.shape} pixels, its image has {image.shape[:2]}")
        found, scene = answers(image, config, network)
        for name, answer in found.items():
            judges.setdefault(name, AveragePrecision()).add(truth, answer)
        counts["instances"] += len(np.unique(truth[truth > 0]))
        counts["published"] += len(scene.objects)
        if overlays is not None:
            picture = outlined(draw_overlay(image, scene.labels, scene.objects, scale=1.0), truth)
            if not cv2.imwrite(str(overlays / f"{path.stem}.jpg"), picture):
                raise StoreError(f"{overlays / path.stem}.jpg: cannot be written")
    return {"images": len(pairs), **counts, **{name: _known(judge.figures()) for name, judge in judges.items()}}


def _known(figures: dict[str, float]) -> dict[str, float | None]:
    """Rounded; None instead of nan, which JSON does not have."""
    return {name: None if np.isnan(value) else round(value, 4) for name, value in figures.items()}


def outlined(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`picture` with a white, dark-rimmed line around every instance of `truth`; same height and width."""
    out = picture.copy()
    lines = [line for value in np.unique(truth) if value for line in _lines(truth == value)]
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.drawContours(out, lines, -1, colour, thickness)
    return out


def _lines(mask: np.ndarray) -> Iterator[np.ndarray]:
    yield from cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
