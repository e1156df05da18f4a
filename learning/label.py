"""python -m learning.label: let the engine label unlabelled clips for training, or measure it on clips kept apart."""

import argparse
import json
import multiprocessing
import shutil
import sys
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engine.config import EngineConfig
from engine.errors import EngineError, ModelError, StoreError, UsageError
from engine.perceive.network import Network, resolve_model
from learning.consistency import clip_consistency
from learning.footage import clip_length, find_clips, is_held_out, read_window, spread
from learning.labels import IGNORED_ID, LabelRules, Tally, label_clip, watch
from learning.synthesis.generate import pair_features
from learning.synthesis.sample import SIZE, Kind, Origin, Sample
from learning.synthesis.shards import write_shard

PREFIX = "label"
REPORT = "labels.json"

_CLIPS_PER_SHARD = 24
_ROBOT = "robot"


@dataclass(frozen=True)
class Settings:
    """What decides the labels besides the clips themselves.

    Attributes:
        frames: consecutive frames watched per window.
        windows: windows spread over a clip that is not of a robot.
        per_clip, per_robot_clip: labelled frames kept; robot clips outnumber the rest eleven to one.
        seed: places the windows.
        model_hash: the network that labels.
    """

    frames: int
    windows: int
    per_clip: int
    per_robot_clip: int
    seed: int
    model_hash: str


@dataclass(frozen=True)
class _Job:
    videos: tuple[Path, ...]
    shard: Path
    model: Path
    settings: Settings


def _windows(video: Path, settings: Settings) -> list[tuple[int, int]]:
    """(first frame, labels to keep) of every window of a clip: evenly spread, the rest of the slack by the seed."""
    robot = video.parent.name == _ROBOT
    keep = settings.per_robot_clip if robot else settings.per_clip
    count = 1 if robot else settings.windows
    length = clip_length(video)
    count = max(1, min(count, length // settings.frames, keep))
    slack = max(0, length - count * settings.frames) / count
    rng = np.random.default_rng([settings.seed, zlib.crc32(video.stem.encode())])
    starts = [int(i * (settings.frames + slack) + rng.random() * slack) for i in range(count)]
    return [(start, keep // count + (i < keep % count)) for i, start in enumerate(starts)]


def label_video(video: Path, network: Network, settings: Settings, rules: LabelRules, tally: Tally) -> list[Sample]:
    """Labelled samples of one clip."""
    samples = []
    for start, keep in _windows(video, settings):
        images = read_window(video, start, settings.frames)
        if not images:
            tally.frames["unreadable clip"] += 1
            continue
        watched = watch(images, network, EngineConfig())
        for found in label_clip(watched, keep, rules, tally):
            # As the engine saw them: they depend on this pair only, and it does not keep them.
            motion = pair_features(images[found.position - 1], images[found.position])
            image = np.ascontiguousarray(images[found.position][..., ::-1])
            samples.append(Sample(image, motion, found.ids, found.kinds, Origin.CLIP))
    return samples


def _count(samples: list[Sample]) -> Counter[str]:
    counts: Counter[str] = Counter(samples=len(samples))
    for sample in samples:
        counts["moving"] += int((sample.kinds == Kind.MOVING).sum())
        counts["static"] += int((sample.kinds == Kind.STATIC).sum())
        counts["ignored_px"] += int((sample.ids == IGNORED_ID).sum())
        counts["background_px"] += int((sample.ids == 0).sum())
        counts["moving_px"] += int((sample.kinds[sample.ids] == Kind.MOVING).sum())
    return counts


def _label(job: _Job) -> int:
    """Write one shard and its account; returns the number of clips.

    Raises:
        ModelError: the model file is not the one that the account names.
    """
    cv2.setNumThreads(1)
    network = Network(job.model, threads=1)
    if network.hash != job.settings.model_hash:
        raise ModelError(
            f"model {job.model} changed while labelling ({job.settings.model_hash}, now {network.hash}): "
            "give a copy that stays, or start with an empty --out"
        )
    samples: list[Sample] = []
    account: dict[str, dict[str, Counter[str]]] = {}
    for video in job.videos:
        tally = Tally()
        found = label_video(video, network, job.settings, LabelRules(), tally)
        samples += found
        source = account.setdefault(video.parent.name, {n: Counter() for n in ("clips", "counts", "frames", "masks")})
        source["clips"].update(seen=1, labelled=int(bool(found)))
        source["counts"] += _count(found)
        source["frames"] += tally.frames
        source["masks"] += tally.masks
    if samples:
        # Without its account the shard is of an interrupted run.
        shutil.rmtree(job.shard, ignore_errors=True)
        write_shard(job.shard, len(samples), samples)
    text = json.dumps({"settings": _described(job), "sources": account}, indent=1)
    part = job.shard.with_suffix(".json.part")
    part.write_text(text, encoding="utf-8")
    part.rename(job.shard.with_suffix(".json"))
    return len(job.videos)


def _described(job: _Job) -> dict[str, object]:
    clips = [f"{video.parent.name}/{video.name}" for video in job.videos]
    return {**asdict(job.settings), "rules": asdict(LabelRules()), "clips": clips}


def _is_done(job: _Job) -> bool:
    """Whether an earlier run finished this shard.

    Raises:
        StoreError: it did, but with another model, other settings or other clips.
    """
    account = job.shard.with_suffix(".json")
    if not account.exists():
        return False
    if json.loads(account.read_text(encoding="utf-8"))["settings"] != _described(job):
        raise StoreError(f"{account}: made by another model, settings or clips: give an empty folder as --out")
    return True


def summarise(out: Path) -> dict[str, object]:
    """One report over all finished shards of a folder, per source; also written to `labels.json`."""
    total: dict[str, dict[str, Counter[str]]] = {}
    settings: dict[str, object] = {}
    for account in sorted(out.glob(f"{PREFIX}_*.json")):
        content = json.loads(account.read_text(encoding="utf-8"))
        settings = {n: v for n, v in content["settings"].items() if n != "clips"}
        for name, parts in content["sources"].items():
            source = total.setdefault(name, {})
            for part, values in parts.items():
                source.setdefault(part, Counter()).update(values)
    report: dict[str, object] = {"settings": settings}
    for name, parts in sorted(total.items()):
        counts, samples = parts["counts"], max(1, parts["counts"]["samples"])
        pixels = samples * SIZE[0] * SIZE[1]
        report[name] = {
            "clips": dict(parts["clips"]),
            "samples": counts["samples"],
            "moving_per_sample": round(counts["moving"] / samples, 3),
            "static_per_sample": round(counts["static"] / samples, 3),
            "moving_share": round(counts["moving_px"] / pixels, 4),
            "background_share": round(counts["background_px"] / pixels, 4),
            "ignored_share": round(counts["ignored_px"] / pixels, 4),
            "frames": dict(parts["frames"].most_common()),
            "masks": dict(parts["masks"].most_common()),
        }
    (out / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def label_clips(videos: list[Path], out: Path, model: Path, settings: Settings, workers: int) -> dict[str, object]:
    """Label clips into `label_XXXX.shard`; finished shards are kept. Returns the report.

    Raises:
        StoreError: `out` cannot be written, or holds labels made otherwise.
        ModelError: the model file changed on the way.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--out {out}: {error.strerror or error}") from None
    count = max(1, -(-len(videos) // _CLIPS_PER_SHARD))
    # Every count-th clip: sources take unequal time and every shard should hold all of them.
    groups = [tuple(videos[i::count]) for i in range(count)]
    jobs = [_Job(g, out / f"{PREFIX}_{n:04d}.shard", model, settings) for n, g in enumerate(groups) if g]
    todo = [job for job in jobs if not _is_done(job)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("labelling clips", total=sum(len(job.videos) for job in todo))
        if workers <= 1 or len(todo) <= 1:
            for job in todo:
                progress.advance(task, _label(job))
        else:
            # Spawned, not forked: a forked child of a process that has used OpenCV's threads can hang in them.
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for done in pool.imap_unordered(_label, todo):
                    progress.advance(task, done)
    return summarise(out)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.label", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos; robot/ below it is capped harder")
    parser.add_argument("--model", default="default", help="ONNX file or name of a shipped model")
    parser.add_argument("--out", type=Path, help="folder for label_XXXX.shard and labels.json; an empty one or resumed")
    parser.add_argument("--check", action="store_true", help="measure consistency on the clips kept apart instead")
    parser.add_argument("--frames", type=int, default=24, help="consecutive frames per window")
    parser.add_argument("--windows", type=int, default=3, help="windows per clip that is not of a robot")
    parser.add_argument("--per-clip", type=int, default=6, help="labelled frames per clip at most")
    parser.add_argument("--per-robot-clip", type=int, default=2, help="the same for clips in robot/")
    parser.add_argument("--limit", type=int, help="clips per source, evenly spread, for trials")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    try:
        _run(args)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    least = {"frames": 3, "windows": 1, "per_clip": 1, "per_robot_clip": 1, "workers": 1, "limit": 1, "seed": 0}
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be {low} or more")
    videos = [video for video in find_clips(args.clips) if is_held_out(video) == args.check]
    if args.limit is not None:
        folders = sorted({video.parent for video in videos})
        videos = [v for folder in folders for v in spread([v for v in videos if v.parent == folder], args.limit)]
    if not videos:
        raise UsageError(f"--clips {args.clips}: no clip is {'kept apart' if args.check else 'left for training'}")
    model = resolve_model(args.model)
    network = Network(model, threads=1)
    if args.check:
        print(json.dumps(asdict(clip_consistency(network, videos, args.frames)), indent=1))
        return
    if network.size != SIZE:
        raise ModelError(f"model {model}: input {network.size}, samples are {SIZE}: export it at that size")
    if args.out is None:
        raise UsageError("--out is missing: give a folder for the shards, or --check to measure only")
    settings = Settings(args.frames, args.windows, args.per_clip, args.per_robot_clip, args.seed, network.hash)
    report = label_clips(videos, args.out, model, settings, args.workers)
    Console().print_json(json.dumps({name: part for name, part in report.items() if name != "settings"}))


if __name__ == "__main__":
    sys.exit(main())
