"""Fine-tuning of AMD for semantic segmentation: pre-trained against random weights, everything else the same.

Classes are the ones the photographs come sorted by: person (people/), animal (animals/), and the rest. Every fifth
block of ten neighbours by name, which may show the same thing, is never trained on and alone is scored.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.davis import read_ids, read_image
from benchmarks.stills import still_paths
from learning.amd.adapt import fit
from learning.amd.clips import SIZE
from learning.amd.semantic import fine_tune, mean_iou
from learning.networks.amd import Amd

CLASSES = ("rest", "person", "animal")
FOLDERS = ("people", "animals")
START = ("random", "pre-trained")
_BLOCK, _HELD_OUT_ONE_IN = 10, 5

Labelled = list[tuple[np.ndarray, np.ndarray]]
"""uint8 [3, h, w] RGB and uint8 [h, w] labels of each photograph."""


def photographs(data: Path, limit: int) -> tuple[Labelled, Labelled]:
    """Photographs to learn from and held-out ones, at the size the network sees, at most `limit` per folder.

    Raises:
        SourceError: a folder is missing or has another layout.
    """
    taught: Labelled = []
    held: Labelled = []
    for label, name in enumerate(FOLDERS, 1):
        for number, (image, annotation) in enumerate(still_paths(data / name, limit)):
            labels = np.where(_shrunk(read_ids(annotation) > 0), label, 0).astype(np.uint8)
            kept_apart = number // _BLOCK % _HELD_OUT_ONE_IN == 0
            (held if kept_apart else taught).append((fit(read_image(image)), labels))
    return taught, held


def _shrunk(mask: np.ndarray) -> np.ndarray:
    # The nearest pixel of each cell: a label is never a mixture.
    rows, columns = ((np.arange(n) * side + side // 2) // n for n, side in zip(SIZE, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def measure(
    network: Amd, data: Path, limit: int, steps: list[int], seeds: list[int], console: Console
) -> dict[str, Any]:
    """Mean IoU over the classes on held-out photographs, after so many updates from either start, for every seed."""
    taught, held = photographs(data, limit)
    images, labels = (np.stack(values) for values in zip(*taught, strict=True))
    rows: dict[str, dict[str, list[float]]] = {start: {} for start in START}
    for seed in seeds:
        torch.manual_seed(seed)
        starts = dict(zip(START, (Amd(network.config), network), strict=True))
        for count in steps:
            for start, base in starts.items():
                model, _ = fine_tune(base, images, labels, len(CLASSES), steps=count, batch=8, seed=seed)
                rows[start].setdefault(str(count), []).append(mean_iou(model, held))
                console.print(
                    f"seed {seed}, {count} updates, {start}: {rows[start][str(count)][-1]:.3f}", highlight=False
                )
    return {"classes": CLASSES, "taught": len(taught), "held_out": len(held), "seeds": seeds, "mean_iou": rows}


def show(content: dict[str, Any], console: Console) -> None:
    """Print means and ranges over the seeds."""
    first = next(iter(content["mean_iou"].values()))
    title = f"mean IoU of {', '.join(content['classes'])}; {content['held_out']} held-out photographs"
    table = Table("start", *(f"{count} updates" for count in first), title=title, title_justify="left")
    for start, row in content["mean_iou"].items():
        table.add_row(start, *(f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in row.values()))
    console.print(table)
