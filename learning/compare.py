"""python -m learning.compare: is a newly trained model better than the one it would replace?

Two opinions, neither of which sees a score set: held-out synthetic samples with exact labels, and how steadily
the model follows what moves on real clips kept apart. A round of self-training is kept only if both agree.

The second opinion is circular: coverage and leak are measured against the flow that is also an input of the network,
so that a network which copies its motion input scores high whatever the picture shows. It can veto a model that
lost the motion or flickers; that a model segments objects well is for the first opinion to say.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from engine.errors import EngineError, ModelError, StoreError, UsageError
from engine.perceive.motion import fit_features
from engine.perceive.network import Network
from learning import consistency, validate
from learning.batches import Batches
from learning.footage import find_clips, is_held_out, spread
from learning.networks.compact import MASK_STRIDE, Proposals
from learning.synthesis.sample import SIZE
from learning.synthesis.shards import Shards

_OUTPUTS = ("masks", "scores", "background", "embedding")


class OnnxProposals:
    """A model file in place of a torch network, for `validate`; all outputs of the contract must be there.

    One with another input size sees the samples at that size, as the engine would show it them, and answers at the
    samples' grid: what is lost by the size is part of what is measured.

    Raises:
        ModelError: missing, corrupt, or not following the contract.
    """

    def __init__(self, path: Path) -> None:
        # Loading it as the engine does refuses what the engine would refuse.
        network = Network(path, threads=1)
        self._session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        missing = sorted(set(_OUTPUTS) - {o.name for o in self._session.get_outputs()})
        if missing:
            raise ModelError(f"model {path}: no output '{missing[0]}', the comparison needs {', '.join(_OUTPUTS)}")
        if not network.uses_motion:
            raise ModelError(f"model {path}: no input 'motion', the comparison needs image and motion")
        self._size, self._motion_size = network.size, network.motion_size

    def eval(self) -> "OnnxProposals":
        """For likeness with torch networks."""
        return self

    def __call__(self, image: torch.Tensor, motion: torch.Tensor) -> Proposals:
        """Outputs for image [B, 3, 256, 448] and motion [B, 5, 128, 224]."""
        single = [
            self._session.run(
                _OUTPUTS,
                {
                    "image": _resized(i.numpy(), self._size, cv2.INTER_AREA)[None],
                    "motion": fit_features(m.numpy(), self._motion_size)[None],
                },
            )
            for i, m in zip(image, motion, strict=True)
        ]
        grid = (SIZE[0] // MASK_STRIDE, SIZE[1] // MASK_STRIDE)
        columns = [np.concatenate(values) for values in zip(*single, strict=True)]
        at_grid = [
            np.stack([_resized(item, grid, cv2.INTER_LINEAR) for item in column]) if column.ndim == 4 else column
            for column in columns
        ]
        return Proposals(*(torch.from_numpy(column) for column in at_grid))


def _resized(planes: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """float32 [C, h', w'] at `size` = (h, w)."""
    if planes.shape[1:] == size:
        return planes
    return np.stack([cv2.resize(plane, size[::-1], interpolation=interpolation) for plane in planes])


@dataclass(frozen=True)
class Measured:
    """What is known of one model.

    Attributes:
        held_out: on synthetic samples.
        clips: on real clips.
    """

    held_out: validate.Figures
    clips: consistency.Figures

    def clip_gain(self, other: "Measured") -> tuple[float, float]:
        """By how much the clips' figures exceed those of another model on the same clips, clip by clip.

        Returns:
            mean difference over the clips where something moves strongly, and its standard error s / sqrt(n);
            infinite below two such clips, of which nothing can be concluded.
        """
        pairs = zip(self.clips.per_clip, other.clips.per_clip, strict=True)
        gains = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        if len(gains) < 2:
            return (gains[0] if gains else 0.0), math.inf
        return float(np.mean(gains)), float(np.std(gains, ddof=1) / math.sqrt(len(gains)))

    def is_better_than(self, other: "Measured") -> bool:
        """True when the held-out figure is higher and the clips' mean gain exceeds its standard error."""
        gain, error = self.clip_gain(other)
        return self.held_out.overall > other.held_out.overall and gain > error


def measure(model: Path, data: Path, clips: list[Path], frames: int) -> Measured:
    """Both opinions about an ONNX file."""
    held = Batches(Shards(data, "held"), 8, SIZE, seed=0)
    figures = validate.validate(OnnxProposals(model), held, torch.device("cpu"))
    return Measured(figures, consistency.clip_consistency(model, clips, frames))


def _prepare_report(path: Path) -> None:
    """Make the folder of a report before the hours that fill it.

    Raises:
        StoreError: the report could not be written there.
    """
    if path.is_dir():
        raise StoreError(f"--json {path}: is a folder, give a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--json {path}: {error.strerror or error}") from None


def _run(args: argparse.Namespace) -> None:
    for name, low in (("frames", 2), ("limit", 1)):
        value = getattr(args, name)
        if value is not None and value < low:
            raise UsageError(f"--{name} {value}: must be {low} or more")
    if args.json is not None:
        _prepare_report(args.json)
    clips = [clip for clip in find_clips(args.clips) if is_held_out(clip)]
    if args.limit is not None:
        clips = spread(clips, args.limit)
    if not clips:
        raise UsageError(f"--clips {args.clips}: none of its clips is kept apart from training")
    old, new = (measure(model, args.data, clips, args.frames) for model in (args.old, args.new))
    better, (gain, error) = new.is_better_than(old), new.clip_gain(old)
    table = Table(
        "model", "held-out: foreground", "best mask", "AP50", "clips: stability", "coverage", "leak", "overall"
    )
    for name, measured in (("old", old), ("new", new)):
        a, b = measured.held_out, measured.clips
        values = (a.binary_iou, a.best_iou, a.ap50, b.stability, b.coverage, b.leak, b.overall)
        table.add_row(name, *(f"{v:.3f}" for v in values))
    console = Console()
    console.print(table)
    console.print(f"clip by clip, new - old: {gain:+.4f}, standard error {error:.4f}")
    console.print("keep the new one" if better else "keep the old one: the new one is not better in both")
    if args.json is not None:
        paired = {"mean": gain, "standard_error": error if math.isfinite(error) else None}
        content = {"old": asdict(old), "new": asdict(new), "clip_gain": paired, "new_is_better": better}
        try:
            args.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as failure:
            raise StoreError(f"--json {args.json}: {failure.strerror or failure}") from None


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.compare", description=__doc__)
    parser.add_argument("--old", type=Path, required=True, help="ONNX file in use")
    parser.add_argument("--new", type=Path, required=True, help="ONNX file that would replace it")
    parser.add_argument("--data", type=Path, required=True, help="folder with held_* shards")
    parser.add_argument("--clips", type=Path, required=True, help="folder of clips; those kept apart are used")
    parser.add_argument("--frames", type=int, default=24, help="frames per clip")
    parser.add_argument("--limit", type=int, help="at most this many clips, evenly spread")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        _run(args)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
