"""AMD on annotated footage and photographs: before training, after it, and after adaptation to each video.

    python -m benchmarks.amd --model MODEL.pt --data DATA [--json FILE] [--iterations 100] [--stills 100] [--only A,B]
    python -m benchmarks.amd --model MODEL.pt --scenes 128 [--json FILE]
    python -m benchmarks.amd --ablation 3,4,5,6,8 --clips CLIPS [--scenes 128] [--data DATA] [--steps 300] [--work DIR]
    python -m benchmarks.amd --semantic 100,400 --model MODEL.pt --data DATA [--stills 600] [--seeds 0,1,2]

DATA holds davis_dev/ and, for stills, people/ animals/ coco/ bins/. No annotation is seen by anything but the score.
Rules by which the object's segment is found: `flow` largest mean segment flow of the video (the paper's), `relative`
the same less what the picture as a whole does, `training` the segment that moves most in the training clips, `best`
the segment that fits the annotation best (not a result: what a perfect rule would reach).
Drawn scenes (`--scenes`) show which link is weak: the flow the motion pathway finds, against the true one; the segment
that fits the shapes best in each scene, and over all scenes; the segment that the rule chooses. They score nothing.
Fine-tuning (`--semantic`, numbers of updates) needs people/ and animals/ of DATA: see `benchmarks.amd_semantic`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from benchmarks import amd_semantic, machine
from benchmarks.davis import Sequence, read_ids, read_image, sequences
from benchmarks.measures import boundary_f, iou
from benchmarks.options import at_least, seed_list
from engine.errors import EngineError, SourceError, UsageError
from learning.amd.adapt import Adaptation, adapt, fit, object_masks, segments, video_motion
from learning.amd.channel import RULES
from learning.amd.checkpoint import load_amd
from learning.amd.clips import Clips, build
from learning.amd.drawn import drawn_pair
from learning.amd.objective import Weights, to_images
from learning.amd.pretrain import AmdTrainer, run
from learning.amd.saliency import SaliencyScore, score
from learning.networks.amd import Amd, AmdConfig

STAGES = ("before", "trained", "adapted")
STILLS = ("people", "animals", "coco", "bins")
_MOST_STILLS_PX = 320


def score_video(network: Amd, sequence: Sequence, frames: np.ndarray, fixed: int | None, every: int) -> dict[str, Any]:
    """J of every rule and F of the paper's over a sequence, first and last frame left out.

    Args:
        frames: uint8 [N, 3, h, w], as the network sees them.
        fixed: segment of the rule `training`, None without.
        every: score one frame in so many.
    """
    motion = video_motion(network, frames)
    channels = {rule: motion.channel(rule) for rule in RULES}
    if fixed is not None:
        channels["training"] = fixed
    soft = segments(network, frames)
    overlaps, edges = [], []
    for index in range(1, len(frames) - 1, every):
        truth = sequence.truth(index) > 0
        masks = [object_masks(soft[index : index + 1], c, truth.shape)[0] for c in range(network.config.segments)]
        overlaps.append([iou(truth, mask) for mask in masks])
        edges.append(boundary_f(truth, masks[channels["flow"]]))
    by_segment = np.mean(overlaps, axis=0)
    row: dict[str, Any] = {f"J_{rule}": round(float(by_segment[c]), 4) for rule, c in channels.items()}
    row["J_best"] = round(float(by_segment.max()), 4)
    row["F_flow"] = round(float(np.mean(edges)), 4)
    return {**row, "frames": len(overlaps), "channels": channels, "area": [round(float(a), 3) for a in motion.area]}


def videos(options: argparse.Namespace, network: Amd, fixed: int, console: Console) -> dict[str, Any]:
    """Every sequence at every stage."""
    torch.manual_seed(0)
    untrained = Amd(network.config).eval()
    settings = Adaptation(iterations=options.iterations, rate=options.rate, batch=options.batch)
    rows: dict[str, Any] = {}
    for sequence in _sequences(options):
        frames = np.stack([fit(sequence.image(i)) for i in range(len(sequence.frames))])
        start = time.perf_counter()
        adapted = adapt(network, frames, settings)
        seconds = time.perf_counter() - start
        stages = {"before": (untrained, None), "trained": (network, fixed), "adapted": (adapted, fixed)}
        rows[sequence.name] = {
            name: score_video(net, sequence, frames, channel, options.every) for name, (net, channel) in stages.items()
        }
        rows[sequence.name]["adapt_s"] = round(seconds, 1)
        figures = " ".join(f"{stage} {rows[sequence.name][stage]['J_flow']:.3f}" for stage in STAGES)
        console.print(f"{sequence.name}: J_flow {figures} ({seconds:.0f} s)", highlight=False)
    return rows


def _sequences(options: argparse.Namespace) -> Iterator[Sequence]:
    wanted = options.only.split(",") if options.only else None
    for sequence in sequences(options.data / "davis_dev"):
        if wanted is None or sequence.name in wanted:
            yield sequence.first(options.frames)


def means(rows: dict[str, Any], stage: str) -> dict[str, float]:
    """Mean over the sequences of every figure of a stage."""
    names = [name for name in next(iter(rows.values()))[stage] if name[:2] in ("J_", "F_")]
    return {name: round(float(np.mean([row[stage][name] for row in rows.values()])), 4) for name in names}


def still_pairs(folder: Path, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures uint8 [H, W, 3] BGR of a folder with their merged masks bool [H, W], evenly spread, made smaller."""
    masks = sorted((folder / "instances").glob("*.png"))
    chosen = masks if len(masks) <= limit else [masks[i * len(masks) // limit] for i in range(limit)]
    for path in chosen:
        pictures = [folder / "images" / f"{path.stem}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
        picture = next((p for p in pictures if p.is_file()), None)
        if picture is None:
            raise SourceError(f"{path}: no picture of that name in {folder / 'images'}")
        image, mask = read_image(picture), read_ids(path) > 0
        scale = min(1.0, _MOST_STILLS_PX / max(mask.shape))
        size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        yield cv2.resize(image, size, interpolation=cv2.INTER_AREA), small


def stills(data: Path, networks: dict[str, tuple[Amd, int]], limit: int) -> dict[str, dict[str, SaliencyScore]]:
    """F_beta and MAE of each network on each folder, and of a bump in the middle that sees nothing."""
    out: dict[str, dict[str, SaliencyScore]] = {}
    for name in STILLS:
        if not (data / name / "instances").is_dir():
            continue
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {key: [] for key in ("centre", *networks)}
        for image, mask in still_pairs(data / name, limit):
            found["centre"].append((_bump(mask.shape), mask))
            for key, (network, channel) in networks.items():
                soft = segments(network, fit(image)[None])[0, channel].numpy()
                found[key].append((cv2.resize(soft, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), mask))
        out[name] = {key: score(pairs) for key, pairs in found.items()}
    return out


def _bump(size: tuple[int, ...]) -> np.ndarray:
    y, x = (np.linspace(-1, 1, n) for n in size)
    return np.exp(-2 * (y[:, None] ** 2 + x[None] ** 2))


def drawn_scenes(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat drawn scenes as the network sees them.

    Returns:
        pairs uint8 [N, 2, 3, h, w], the later frame first; shapes in it bool [N, h, w]; its flow to the earlier one
        float32 [N, h, w, 2] in pixels of this size.
    """
    rng = np.random.default_rng(seed)
    pairs, shapes, flows = [], [], []
    for _ in range(count):
        scene = drawn_pair(rng, flat=True)
        pairs.append(np.stack([fit(np.ascontiguousarray(image[..., ::-1])) for image in scene.images[::-1]]))
        h, w = pairs[-1].shape[2:]
        small = cv2.resize(scene.foreground.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
        shapes.append(small > 0.5)
        scale = np.asarray([w / scene.flow.shape[1], h / scene.flow.shape[0]], np.float32)
        flows.append(cv2.resize(scene.flow, (w, h), interpolation=cv2.INTER_NEAREST) * scale)
    return np.stack(pairs), np.stack(shapes), np.stack(flows)


@torch.no_grad()
def score_scenes(network: Amd, channel: int, scenes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
    """What each link reaches on drawn scenes: end-point errors in pixels, and J of segments."""
    network.eval()
    pairs, shapes, flows = scenes
    size = shapes.shape[1:]
    found, overlaps = [], []
    for begin in range(0, len(pairs), 16):
        first, second = to_images(pairs[begin : begin + 16])
        dense = F.interpolate(network.dense_flow(first, second)[0], size=size, mode="bilinear", align_corners=False)
        found.append(dense.permute(0, 2, 3, 1).numpy())
        soft = network.masks(first)
        masks = [object_masks(soft, c, size) for c in range(network.config.segments)]
        truth = shapes[begin : begin + 16]
        overlaps += [[iou(t, m[i]) for m in masks] for i, t in enumerate(truth)]
    error, still = (np.linalg.norm(flow - flows, axis=3) for flow in (np.concatenate(found), np.zeros_like(flows)))
    each = np.asarray(overlaps)
    return {
        "error_px": float(error.mean()),
        "error_px_shapes": float(error[shapes].mean()),
        "still_px": float(still.mean()),
        "still_px_shapes": float(still[shapes].mean()),
        "J_best_of_each": float(each.max(axis=1).mean()),
        "J_best_of_all": float(each.mean(axis=0).max()),
        "J_chosen": float(each[:, channel].mean()),
        "area": float(shapes.mean()),
    }


def ablation(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """The same short training with other numbers of segments: held-out distance, and J per image."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="amd-ablation-") as scratch:
        work = options.work or Path(scratch)
        clips: Clips = build(options.clips, options.cache or work / "cache", drawn=options.drawn)
        scenes = drawn_scenes(options.scenes) if options.scenes else None
        # Last, the objective of the paper without the terms that are ours.
        variants = [(count, Weights()) for count in options.ablation] + [(AmdConfig.segments, Weights(0, 0))]
        for count, weights in variants:
            paper = weights == Weights(0, 0)
            out = work / (f"c{count}-paper" if paper else f"c{count}")
            out.mkdir(parents=True, exist_ok=True)
            config = AmdConfig(segments=count)
            trainer = AmdTrainer(clips, out, config, steps=options.steps, rate=options.train_rate, weights=weights)
            if trainer.progress < 1 or not (out / "model.pt").exists():
                run(trainer, Console(quiet=True), save_every_s=60)
            network, fixed, training = load_amd(out / "model.pt")
            scored = {}
            for sequence in _sequences(options) if options.data else ():
                frames = np.stack([fit(sequence.image(i)) for i in range(len(sequence.frames))])
                scored[sequence.name] = {"trained": score_video(network, sequence, frames, fixed, options.every)}
            last = training["history"][-1]
            name = f"{count}, paper's objective" if paper else str(count)
            row = {"c": name, "steps": trainer.step, "held_out": last["held_out"], "unmoved": last["unmoved"]}
            if scenes is not None:
                drawn = score_scenes(network, fixed, scenes)
                row |= {f"drawn {key}": drawn[key] for key in ("error_px", "J_best_of_each", "J_chosen")}
            rows.append(row | (means(scored, "trained") if scored else {}))
            console.print(f"c = {count}: {rows[-1]}", highlight=False)
    return rows


def show(content: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    if "videos" in content:
        columns = ("J_flow", "J_relative", "J_training", "J_best", "F_flow")
        table = Table("stage", *columns, title="davis_dev, mean over sequences", title_justify="left")
        for stage in STAGES:
            row = content["mean"][stage]
            table.add_row(stage, *(f"{row[c]:.3f}" if c in row else "" for c in columns))
        console.print(table)
    if "scenes" in content:
        names = list(next(iter(content["scenes"].values())))
        table = Table("stage", *names, title="drawn scenes", title_justify="left")
        for stage, row in content["scenes"].items():
            table.add_row(stage, *(f"{row[name]:.3f}" for name in names))
        console.print(table)
    if "stills" in content:
        table = Table("folder", "map", "F_beta", "MAE", "images", title="stills", title_justify="left")
        for name, found in content["stills"].items():
            for key, row in found.items():
                table.add_row(name, key, f"{row['f_beta']:.3f}", f"{row['mae']:.3f}", str(row["images"]))
        console.print(table)
    if "ablation" in content:
        names = list(content["ablation"][0])
        table = Table(*names, title="number of segments", title_justify="left")
        for row in content["ablation"]:
            table.add_row(*(f"{row[n]:.4f}" if isinstance(row[n], float) else str(row[n]) for n in names))
        console.print(table)


def _counts(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="footage and photographs with annotations")
    parser.add_argument("--scenes", type=int, default=0, metavar="N", help="score N drawn scenes")
    parser.add_argument("--model", type=Path, help="model.pt of python -m learning.pretrain --objective amd")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--iterations", type=at_least(1), default=100, help="of adaptation, per video")
    parser.add_argument("--rate", type=float, default=Adaptation.rate, help="of adaptation (default 1e-4)")
    parser.add_argument("--batch", type=at_least(1), default=Adaptation.batch, help="pairs per iteration")
    parser.add_argument(
        "--stills", type=int, default=100, metavar="N", help="at most N photographs per folder; 0: none"
    )
    parser.add_argument("--only", help="names of sequences, comma separated")
    parser.add_argument("--frames", type=at_least(3), metavar="N", help="first N frames of every sequence only")
    parser.add_argument("--every", type=at_least(1), default=1, metavar="N", help="score one frame in N")
    parser.add_argument("--ablation", type=_counts, metavar="C,C", help="train with so many segments each instead")
    parser.add_argument("--semantic", type=_counts, metavar="N,N", help="fine-tune on classes, so many updates each")
    parser.add_argument("--seeds", type=seed_list, default=[0, 1, 2], metavar="S,S", help="for --semantic")
    parser.add_argument("--clips", type=Path, help="for --ablation: folder of unlabelled videos")
    parser.add_argument("--cache", type=Path, help="for --ablation: decoded frames")
    parser.add_argument("--drawn", type=int, default=0, help="for --ablation: pairs of drawn scenes")
    parser.add_argument("--steps", type=at_least(1), default=300, help="for --ablation: updates per training")
    parser.add_argument("--train-rate", type=float, default=1e-3, help="for --ablation: of Adam")
    parser.add_argument("--work", type=Path, help="for --ablation: keep the runs here; interrupted ones resume")
    parser.add_argument("--threads", type=at_least(1), default=1)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and write the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(width=120)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    content: dict[str, Any] = {}
    try:
        if options.ablation:
            if options.clips is None:
                raise UsageError("--ablation: needs --clips")
            content["ablation"] = ablation(options, console)
        else:
            if options.model is None:
                raise UsageError("--model is missing: give a model.pt, or --ablation")
            network, fixed, training = load_amd(options.model)
            content["training"] = {k: v for k, v in training.items() if k != "history"}
            if options.semantic:
                if options.data is None or not options.seeds:
                    raise UsageError("--semantic: needs --data, and a seed at least")
                parts = options.stills, options.semantic, options.seeds
                content["semantic"] = amd_semantic.measure(network, options.data, *parts, console)
                amd_semantic.show(content["semantic"], console)
                machine.write_report(options.json, content)
                return 0
            if options.scenes:
                torch.manual_seed(0)
                scenes = drawn_scenes(options.scenes)
                stages = {"before": (Amd(network.config), fixed), "trained": (network, fixed)}
                content["scenes"] = {name: score_scenes(*stage, scenes) for name, stage in stages.items()}
            elif options.data is None:
                raise UsageError("--data is missing: give a folder, or --scenes")
            if options.data and (options.data / "davis_dev").is_dir():
                rows = videos(options, network, fixed, console)
                if not rows:
                    raise UsageError(f"--only {options.only}: no sequence of that name")
                content |= {"mean": {stage: means(rows, stage) for stage in STAGES}, "videos": rows}
            if options.data and options.stills:
                torch.manual_seed(0)
                networks = {"before": (Amd(network.config).eval(), fixed), "trained": (network, fixed)}
                found = stills(options.data, networks, options.stills)
                content["stills"] = {n: {k: vars(v) for k, v in row.items()} for n, row in found.items()}
        show(content, console)
        machine.write_report(options.json, content)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
