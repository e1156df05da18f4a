"""python -m export sensitivity CHECKPOINT: what does INT8 cost, layer by layer?

Quantises the network in many ways and compares each with torch: every calibration method; every node that is
quantised left in fp32 alone; and the most sensitive ones together. Times are taken in turns with the plain INT8
file on the same inputs, so that a busy machine slows both.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from engine.errors import StoreError
from engine.perceive.backends.choose import open_runner
from engine.perceive.backends.runner import ModelFile, Request, Runner
from engine.perceive.contract import OUTPUTS
from export.calibrate import METHODS, Histogram, histograms, tensor_ranges
from export.checkpoint import load_checkpoint
from export.convert import Options, calibration_frames, parity_frames
from export.data_options import add_data_options
from export.frames import NetworkInput
from export.graph import write_graph
from export.parity import Comparison, Parity
from export.quantise import activations, layers, prepare, write_quantised
from export.runners import TorchRunner


@dataclass(frozen=True)
class Trial:
    """One way to quantise: what stayed in fp32, how well it agrees, and its time over the plain file's."""

    label: str
    keep: tuple[str, ...]
    parity: Parity
    time_ratio: float


class Study:
    """Quantises one network again and again; calibrates and runs the reference only once.

    Args:
        model: the prepared fp32 graph.
        found: histograms of its activations.
        reference: outputs of the network on `frames`.
        frames: what every trial is compared on.
        folder: for the files of the trials.
        turns: timed runs of each trial, alternating with the plain file.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        found: dict[str, Histogram],
        reference: Sequence[dict[str, np.ndarray]],
        frames: Sequence[NetworkInput],
        folder: Path,
        turns: int = 20,
    ) -> None:
        self._model, self._found = model, found
        self._reference, self._frames = reference, frames
        self._folder, self._turns = folder, turns
        self._plain: Runner | None = None

    def trial(self, label: str, keep: Iterable[str] = (), method: str = "percentile") -> Trial:
        """Quantise, compare, time. The first trial is the one others are timed against."""
        kept = tuple(keep)
        path = self._folder / "trial.onnx"
        write_quantised(self._model, path, tensor_ranges(self._found, method), kept)
        runner = open_runner(Request(ModelFile.read(path)), "onnxruntime")
        self._plain = self._plain or runner
        comparison = Comparison()
        for expected, frame in zip(self._reference, self._frames, strict=True):
            comparison.add(expected, runner.run(frame.feeds(), OUTPUTS))
        return Trial(label, kept, comparison.result(), time_ratio(runner, self._plain, self._frames[0], self._turns))


def time_ratio(a: Runner, b: Runner, frame: NetworkInput, turns: int) -> float:
    """Median over `turns` of the time of `a` divided by that of `b`, run one after the other."""
    feeds = frame.feeds()
    ratios = []
    for _ in range(turns):
        stamps = [time.perf_counter()]
        for runner in (a, b):
            runner.run(feeds, OUTPUTS)
            stamps.append(time.perf_counter())
        ratios.append((stamps[1] - stamps[0]) / (stamps[2] - stamps[1]))
    return float(np.median(ratios))


def run_study(checkpoint_path: Path, options: Options, together: int = 4) -> list[Trial]:
    """Every trial, in the order of the table.

    Args:
        together: how many of the most sensitive nodes to keep in fp32 at once, one more each time.

    Raises:
        ModelError: bad checkpoint.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.onnx"
        write_graph(checkpoint, fp32)
        model = prepare(fp32, Path(folder) / "prepared.onnx")
        found = histograms(model, activations(model), calibration_frames(options))
        frames = parity_frames(options)
        network = TorchRunner(checkpoint)
        reference = [network.run(frame.feeds(), OUTPUTS) for frame in frames]
        study = Study(model, found, reference, frames, Path(folder))
        trials = [study.trial(f"calibration {method}", method=method) for method in METHODS]
        single = [study.trial(name, [name], options.calibration) for name in layers(model)]
        single.sort(key=lambda trial: -trial.parity.mask_iou)
        for count in range(2, together + 1):
            keep = [name for trial in single[:count] for name in trial.keep]
            trials.append(study.trial(f"the {count} most sensitive", keep, options.calibration))
        return trials + single


def main(argv: list[str]) -> int:
    """Print the table, write the JSON, return the exit code.

    Raises:
        EngineError: the checkpoint, the data or the output cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m export sensitivity", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    add_data_options(parser)
    parser.add_argument("--frames", type=int, default=60, help="frames every trial is compared on")
    parser.add_argument("--calibration", choices=METHODS, default="percentile")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    options = Options(data=args.data, clips=args.clips, parity_frames=args.frames, calibration=args.calibration)
    trials = run_study(args.checkpoint, options)
    table = Table("left in fp32", "mask IoU", "background", "embedding", "rank", "selection", "time")
    for trial in trials:
        p = trial.parity
        errors = (f"{p.background_error:.4f}", f"{p.embedding_error:.3f}", f"{p.rank:.3f}", f"{p.selection:.3f}")
        table.add_row(trial.label, f"{p.mask_iou:.4f}", *errors, f"x {trial.time_ratio:.2f}")
    Console(width=110).print(table)
    if args.json is not None:
        try:
            args.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"--json {args.json}: {error.strerror or error}") from None
    return 0
