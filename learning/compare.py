"""python -m learning.compare: is a newly trained model better than the one it would replace?

Two opinions, neither of which sees a score set: held-out synthetic samples with exact labels, and how steadily
the model follows what moves on real clips kept apart. A round of self-training is kept only if both agree.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from engine.errors import EngineError, UsageError
from engine.perceive.network import Network
from learning import consistency, validate
from learning.batches import Batches
from learning.footage import find_clips, is_held_out
from learning.networks.compact import Proposals
from learning.synthesis.sample import SIZE
from learning.synthesis.shards import Shards

_OUTPUTS = ("masks", "scores", "background", "embedding")


class OnnxProposals:
    """A model file in place of a torch network, for `validate`; all outputs of the contract must be there.

    Raises:
        ModelError: missing, corrupt, or not following the contract.
    """

    def __init__(self, path: Path) -> None:
        # Loading it as the engine does refuses what the engine would refuse.
        Network(path, threads=1)
        self._session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def eval(self) -> "OnnxProposals":
        """For likeness with torch networks."""
        return self

    def __call__(self, image: torch.Tensor, motion: torch.Tensor) -> Proposals:
        """Outputs for image [B, 3, 256, 448] and motion [B, 5, 128, 224]."""
        single = [
            self._session.run(_OUTPUTS, {"image": i[None].numpy(), "motion": m[None].numpy()})
            for i, m in zip(image, motion, strict=True)
        ]
        return Proposals(*(torch.from_numpy(np.concatenate(values)) for values in zip(*single, strict=True)))


@dataclass(frozen=True)
class Measured:
    """What is known of one model.

    Attributes:
        held_out: on synthetic samples.
        clips: on real clips.
    """

    held_out: validate.Figures
    clips: consistency.Figures

    def is_better_than(self, other: "Measured") -> bool:
        """True when both opinions are higher."""
        return self.held_out.overall > other.held_out.overall and self.clips.overall > other.clips.overall


def measure(model: Path, data: Path, clips: list[Path], frames: int) -> Measured:
    """Both opinions about an ONNX file."""
    held = Batches(Shards(data, "held"), 8, SIZE, seed=0)
    figures = validate.validate(OnnxProposals(model), held, torch.device("cpu"))
    return Measured(figures, consistency.clip_consistency(model, clips, frames))


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
        clips = [clip for clip in find_clips(args.clips) if is_held_out(clip)]
        if args.limit is not None:
            clips = clips[:: max(1, len(clips) // args.limit)]
        if not clips:
            raise UsageError(f"--clips {args.clips}: none of its clips is kept apart from training")
        measured = {name: measure(getattr(args, name), args.data, clips, args.frames) for name in ("old", "new")}
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    better = measured["new"].is_better_than(measured["old"])
    table = Table(
        "model", "held-out: foreground", "best mask", "AP50", "clips: stability", "coverage", "leak", "overall"
    )
    for name, m in measured.items():
        a, b = m.held_out, m.clips
        values = (a.binary_iou, a.best_iou, a.ap50, b.stability, b.coverage, b.leak, b.overall)
        table.add_row(name, *(f"{v:.3f}" for v in values))
    console = Console()
    console.print(table)
    console.print("keep the new one" if better else "keep the old one: the new one is not better in both")
    if args.json:
        content = {name: asdict(m) for name, m in measured.items()} | {"new_is_better": better}
        args.json.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
