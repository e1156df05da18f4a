"""Grasp success in the simulated cell with the engine's masks, the true ones, and those of colour and depth thresholds.

    python -m benchmarks.grasping --json FILE --work DIR [--scenes 50] [--first-seed 100] [--count 5]

The planner is that of `examples.grasping`, and so are its rules; only the masks differ. A scene is a function of its
seed, and each method has as many attempts as things lie in it; success is the share of them lifted. Every attempt
begins with a new picture: the engine sees eight frames of the scene at rest (a sensor's noise is all that changes) in
this process, and the provisional masks of the last go to the planner, which takes the grasp it thinks best of all
objects. A method without any graspable mask has missed the attempt. Each scene leaves a file: killed and started again
with the same --work, the run goes on.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import write_report
from benchmarks.options import at_least
from engine.config import EngineConfig
from engine.errors import EngineError, StoreError
from engine.frame import Frame
from engine.perceive.network import DEFAULT_MODEL, Network
from engine.pipeline import Pipeline
from examples.grasping.camera import Picture
from examples.grasping.cell import WORKSPACE, Cell
from examples.grasping.grasp import Grasp, plan

ENGINE, TRUTH, DEPTH, COLOUR = "engine", "true masks", "depth threshold", "colour threshold"
METHODS = (TRUTH, ENGINE, DEPTH, COLOUR)
WANTED_SHARE = 0.8
"""Of the upper bound, for the engine."""

_FRAMES = 8
_MIN_MASK_PX = 80
_MIN_HEIGHT_M = 0.01
_FOUND_IOU = 0.5

Masks = list[np.ndarray]


class EngineMasks:
    """Provisional masks of one pipeline that lives as long as the scene, as a robot's would."""

    def __init__(self, network: Network, frames: int = _FRAMES) -> None:
        self._pipeline = Pipeline(EngineConfig(), network)
        self._frames, self._next = frames, 0

    def __call__(self, cell: Cell, picture: Picture, points: np.ndarray) -> Masks:
        labels, objects = np.zeros(picture.bodies.shape, np.uint16), ()
        for _ in range(self._frames):
            frame = Frame(cell.noisy(picture), self._next, time.time_ns(), "fixed")
            scene = self._pipeline.step(frame)[-1]
            labels, objects = scene.labels, scene.objects
            self._next += 1
        return [labels == item.label for item in objects]


def true_masks(cell: Cell, picture: Picture, points: np.ndarray) -> Masks:
    """Of the renderer."""
    labels = cell.truth(picture)
    return [labels == label for label in np.unique(labels) if label]


def depth_threshold(cell: Cell, picture: Picture, points: np.ndarray) -> Masks:
    """Connected regions of the workspace that rise a centimetre above its floor."""
    return _regions((points[..., 2] > WORKSPACE.floor_m + _MIN_HEIGHT_M) & _workspace(points))


def colour_threshold(cell: Cell, picture: Picture, points: np.ndarray) -> Masks:
    """Connected regions of the workspace whose colour is not the tray's (Otsu on the distance from its median, Lab)."""
    inside = _workspace(points)
    lab = cv2.cvtColor(cell.noisy(picture).astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    distance = np.linalg.norm(lab - np.median(lab[inside], axis=0), axis=2)
    levels = np.clip(distance[inside] * 2, 0, 255).astype(np.uint8)
    limit, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return _regions((distance * 2 > limit) & inside)


def _workspace(points: np.ndarray) -> np.ndarray:
    x, y = points[..., 0], points[..., 1]
    (x0, x1), (y0, y1) = WORKSPACE.x_m, WORKSPACE.y_m
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _regions(mask: np.ndarray) -> Masks:
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, figures, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    return [labels == i for i in range(1, count) if figures[i, cv2.CC_STAT_AREA] >= _MIN_MASK_PX]


def segmenter(method: str, network: Network) -> Callable[[Cell, Picture, np.ndarray], Masks]:
    """What finds the masks of a scene."""
    if method == ENGINE:
        return EngineMasks(network)
    return {TRUTH: true_masks, DEPTH: depth_threshold, COLOUR: colour_threshold}[method]


def best_grasp(points: np.ndarray, masks: Sequence[np.ndarray]) -> Grasp | None:
    """The cheapest grasp of all masks."""
    grasps = [grasp for mask in masks if (grasp := plan(points, mask, WORKSPACE)) is not None]
    return min(grasps, key=lambda grasp: grasp.cost, default=None)


def found_things(truth: np.ndarray, masks: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many things a mask covers with an IoU of at least 0.5, and how many there are."""
    things = [truth == label for label in np.unique(truth) if label]
    best = [max(((a & b).sum() / (a | b).sum() for b in masks), default=0.0) for a in things]
    return sum(float(iou) >= _FOUND_IOU for iou in best), len(things)


@dataclass(frozen=True)
class Setting:
    """What decides the figures besides the seeds."""

    count: int
    model: str


def run_method(cell: Cell, segment: Callable[[Cell, Picture, np.ndarray], Masks]) -> dict[str, Any]:
    """The attempts of one method in a scene, as many as there are things."""
    things, attempts = len(cell.things), []
    for _ in range(things):
        picture = cell.fixed()
        points = cell.view.points(cell.sensed_depth(picture))
        masks = segment(cell, picture, points)
        grasp = best_grasp(points, masks)
        found, visible = found_things(cell.truth(picture), masks)
        held = cell.grasp(grasp) if grasp is not None else False
        attempts.append({"held": held, "planned": grasp is not None, "found": found, "visible": visible})
        if not cell.things:
            break
    return {"things": things, "attempts": attempts}


def run_scene(seed: int, setting: Setting, network: Network) -> dict[str, Any]:
    """Every method in the same scene, which is put back in between."""
    results = {}
    with Cell(seed, setting.count) as cell:
        for method in METHODS:
            cell.restore()
            results[method] = run_method(cell, segmenter(method, network))
    return results


def summarise(scenes: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Figures per method; the interval is over scenes (bootstrap, 95 %)."""
    rng, result = np.random.default_rng(0), {}
    for method, found in scenes.items():
        held = np.array([sum(a["held"] for a in scene["attempts"]) for scene in found], float)
        tried = np.array([scene["things"] for scene in found], float)
        draws = rng.integers(0, len(found), (2000, len(found)))
        low, high = np.percentile(held[draws].sum(axis=1) / np.maximum(1, tried[draws].sum(axis=1)), (2.5, 97.5))
        attempts = [a for scene in found for a in scene["attempts"]]
        first = [scene["attempts"][0] for scene in found if scene["attempts"]]
        result[method] = {
            "scenes": len(found),
            "things": int(tried.sum()),
            "attempts": len(attempts),
            "success": float(held.sum() / max(1, tried.sum())),
            "low": float(low),
            "high": float(high),
            "without_a_plan": sum(not a["planned"] for a in attempts),
            "things_found": sum(a["found"] for a in first) / max(1, sum(a["visible"] for a in first)),
        }
    if TRUTH in result:
        for figures in result.values():
            figures["share_of_bound"] = figures["success"] / max(1e-9, result[TRUTH]["success"])
    return result


def print_table(summary: dict[str, dict[str, float]]) -> None:
    """The table on the terminal."""
    table = Table(title="grasps in the simulated cell")
    for name in ("masks", "scenes", "attempts", "success", "95 %", "of the bound", "no plan", "things found"):
        table.add_column(name, justify="left" if name == "masks" else "right", no_wrap=True)
    for method, row in summary.items():
        table.add_row(
            method,
            f"{row['scenes']:.0f}",
            f"{row['attempts']:.0f}",
            f"{row['success']:.2f}",
            f"{row['low']:.2f} … {row['high']:.2f}",
            f"{row['share_of_bound']:.2f}",
            f"{row['without_a_plan']:.0f}",
            f"{row['things_found']:.2f}",
        )
    Console(width=120).print(table)


_FONT = cv2.FONT_HERSHEY_SIMPLEX
_COLOURS = (
    (60, 60, 230),
    (60, 200, 60),
    (230, 140, 40),
    (40, 200, 230),
    (220, 60, 200),
    (200, 200, 60),
    (120, 120, 255),
)


def draw_masks(image: np.ndarray, masks: Sequence[np.ndarray], grasp: Grasp | None, cell: Cell) -> np.ndarray:
    """Image uint8 [h, w, 3] with masks and the fingers of the grasp."""
    canvas = image.copy()
    for number, mask in enumerate(masks):
        colour = np.array(_COLOURS[number % len(_COLOURS)])
        canvas[mask] = (0.55 * canvas[mask] + 0.45 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, colour.tolist(), 1)
    if grasp is not None:
        closing = np.array([np.cos(grasp.angle), np.sin(grasp.angle), 0.0])
        across = np.array([-closing[1], closing[0], 0.0])
        middle = np.array([grasp.x, grasp.y, grasp.z])
        tips = [middle + side * closing * grasp.opening_m / 2 for side in (-1, 1)]
        cv2.line(canvas, *(_pixel(cell, tip) for tip in tips), (255, 255, 255), 1, cv2.LINE_AA)
        for tip in tips:
            ends = [_pixel(cell, tip + side * across * 0.01) for side in (-1, 1)]
            cv2.line(canvas, *ends, (0, 0, 0), 5, cv2.LINE_AA)
            cv2.line(canvas, *ends, (255, 255, 255), 3, cv2.LINE_AA)
    return canvas


def _pixel(cell: Cell, point: np.ndarray) -> tuple[int, int]:
    x, y = cell.view.pixel(point)
    return round(x), round(y)


def draw_report(
    summary: dict[str, dict[str, float]], seeds: Sequence[int], setting: Setting, network: Network
) -> np.ndarray:
    """One row per method: what it sees and would do in three scenes, and its success as a bar."""
    tiles: dict[str, list[np.ndarray]] = {method: [] for method in summary}
    for seed in seeds:
        with Cell(seed, setting.count) as cell:
            picture = cell.fixed()
            points = cell.view.points(cell.sensed_depth(picture))
            for method, drawn in tiles.items():
                masks = segmenter(method, network)(cell, picture, points)
                drawn.append(draw_masks(picture.image, masks, best_grasp(points, masks), cell)[20:215, 70:350])
    rows = []
    for method, figures in summary.items():
        panel = np.full((tiles[method][0].shape[0], 300, 3), 255, np.uint8)
        ours = method == ENGINE
        cv2.putText(panel, method, (16, 60), _FONT, 0.7, (0, 0, 0), 2 if ours else 1, cv2.LINE_AA)
        text = f"{100 * figures['success']:.0f} % of {figures['things']:.0f} things"
        cv2.putText(panel, text, (16, 92), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        colour = (80, 160, 40) if ours else (190, 190, 190) if method == TRUTH else (200, 160, 110)
        cv2.rectangle(panel, (16, 110), (16 + round(268 * figures["success"]), 136), colour, -1)
        cv2.rectangle(panel, (16, 110), (284, 136), (120, 120, 120), 1)
        for end in (figures["low"], figures["high"]):
            cv2.line(panel, (16 + round(268 * end), 106), (16 + round(268 * end), 140), (60, 60, 60), 2)
        rows.append(np.hstack([panel, *tiles[method]]))
    return np.vstack(rows)


def _open_work(work: Path, setting: Setting) -> None:
    text = json.dumps(asdict(setting), indent=1)
    path = work / "setting.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        same = path.read_text(encoding="utf-8") == text
    except OSError as error:
        raise StoreError(f"--work {work}: {error.strerror or error}; give a folder that can be written") from None
    if not same:
        raise StoreError(f"--work {work}: begun with other settings (setting.json): give an empty folder")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All scenes not done yet, then the report.

    Raises:
        EngineError: pybullet is missing, or a file cannot be written.
    """
    network = Network(options.model)
    setting = Setting(options.count, network.hash)
    _open_work(options.work, setting)
    seeds = list(range(options.first_seed, options.first_seed + options.scenes))
    results = []
    for seed in track(seeds, description="grasping", console=Console(stderr=True)):
        path = options.work / f"{seed:05d}.json"
        if not path.exists():
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(run_scene(seed, setting, network)), encoding="utf-8")
            os.replace(partial, path)
        results.append(json.loads(path.read_text(encoding="utf-8")))
    scenes = {method: [result[method] for result in results] for method in METHODS}
    summary = summarise(scenes)
    print_table(summary)
    picture = options.json.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(picture), draw_report(summary, seeds[:3], setting, network)):
        raise StoreError(f"{picture}: cannot be written; give another --json")
    share = summary[ENGINE]["share_of_bound"]
    print(f"engine: {share:.2f} of the upper bound, {WANTED_SHARE} wanted: {'yes' if share >= WANTED_SHARE else 'no'}")
    return {"setting": asdict(setting), "seeds": seeds, "summary": summary, "scenes": scenes}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="figures; the picture is written beside it as .png")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run; an interrupted one goes on")
    parser.add_argument("--scenes", type=at_least(1), default=50)
    parser.add_argument("--first-seed", type=at_least(0), default=100)
    parser.add_argument("--count", type=at_least(1), default=5, help="things per scene")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    try:
        write_report(options.json, run(options))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
