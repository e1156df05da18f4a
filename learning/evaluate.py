"""python -m learning.evaluate: score a model file, frame by frame, on a folder of sequences or of photographs.

What is scored is the network alone, not the engine: no selection over time, no seeds, no identities.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table

from engine.errors import EngineError, ModelError, SourceError, UsageError
from engine.perceive.motion import MOTION_DEFINITION, MotionEstimator, network_features

METRICS = ("davis", "coco")

_THRESHOLDS = (0.3, 0.5, 0.7)
"""Foreground levels whose connected components count as further proposals."""

_MIN_COMPONENT = 6
"""Cells of a component at stride 4."""


@dataclass(frozen=True)
class SequenceScore:
    """Mean IoU over the frames of a sequence, first and last left out.

    Attributes:
        name: sequence.
        frames: frames scored.
        binary: foreground at 0.5 against the merged mask.
        top: best-scored proposal, an actual answer.
        best_mask: best of the network's masks, chosen with the truth.
        best_any: best of the masks and the components of the foreground, chosen with the truth.
    """

    name: str
    frames: int
    binary: float
    top: float
    best_mask: float
    best_any: float


class Network:
    """A model file and the preprocessing its metadata asks for.

    Raises:
        ModelError: missing, corrupt, or trained on other motion features than this engine computes.
    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such model; give an ONNX file written by python -m export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path} is not an ONNX model ({str(error).splitlines()[0][:120]})") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        if metadata.get("motion") != MOTION_DEFINITION:
            raise ModelError(
                f"{path} was trained on motion '{metadata.get('motion')}', this engine computes '{MOTION_DEFINITION}': "
                "export a model trained on the current features"
            )
        normalisation = json.loads(metadata["normalisation"])
        self._mean = np.float32(normalisation["mean"])
        self._std = np.float32(normalisation["std"])
        self._scale = np.float32(normalisation["scale"])
        sizes = {i.name: tuple(i.shape[2:]) for i in self._session.get_inputs()}
        self.size, self.motion_size = sizes["image"], sizes.get("motion", sizes["image"])
        self._estimator = MotionEstimator()

    def reset(self) -> None:
        """Forget the previous frame."""
        self._estimator.reset()

    def step(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of the model contract, as far as the model has them, for the next uint8 [H, W, 3] BGR frame."""
        small = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        motion = network_features(self._estimator.step(small), self.motion_size)
        rgb = (small[..., ::-1].astype(np.float32) * self._scale - self._mean) / self._std
        feeds = {"image": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]), "motion": motion[None]}
        feeds = {i.name: feeds[i.name] for i in self._session.get_inputs()}
        names = [o.name for o in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean masks; two empty masks agree."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def _components(foreground: np.ndarray) -> Iterator[np.ndarray]:
    for threshold in _THRESHOLDS:
        count, labels, stats, _ = cv2.connectedComponentsWithStats((foreground > threshold).astype(np.uint8))
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] >= _MIN_COMPONENT:
                yield labels == label


def score_sequence(network: Network, images: list[Path], annotations: Path, name: str) -> SequenceScore:
    """Run one sequence; a frame without annotation is seen but not scored."""
    network.reset()
    rows = []
    for number, path in enumerate(images):
        image = cv2.imread(str(path))
        if image is None:
            raise SourceError(f"{path} cannot be read as an image: check the folder")
        out = network.step(image)
        truth = cv2.imread(str(annotations / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        if truth is None or number in (0, len(images) - 1):
            continue
        truth = truth > 0
        size = truth.shape
        foreground = 1 - out["background"][0, 0]
        proposals = [iou(_enlarged(m, size) > 0, truth) for m in out["masks"][0]] if "masks" in out else []
        parts = [iou(_enlarged(c, size) > 0.5, truth) for c in _components(foreground)]
        binary = iou(_enlarged(foreground, size) > 0.5, truth)
        top = proposals[int(out["scores"][0].argmax())] if proposals else 0.0
        rows.append((binary, top, max(proposals, default=0.0), max(proposals + parts, default=0.0)))
    if not rows:
        raise SourceError(f"{annotations} holds no annotation for the frames of {name}")
    return SequenceScore(name, len(rows), *(float(v) for v in np.mean(rows, axis=0)))


def score_davis(model: Path, data: Path) -> list[SequenceScore]:
    """Score every sequence under JPEGImages/480p with its Annotations/480p.

    Raises:
        SourceError: the folder has another layout.
    """
    root = data / "JPEGImages" / "480p"
    if not root.is_dir():
        raise SourceError(f"{data} has no JPEGImages/480p: --metrics davis needs the DAVIS layout")
    network = Network(model)
    sequences = sorted(p for p in root.iterdir() if p.is_dir())
    return [
        score_sequence(network, sorted(s.glob("*.jpg")), data / "Annotations" / "480p" / s.name, s.name)
        for s in track(sequences, description="sequences", console=Console(stderr=True))
    ]


def score_coco(model: Path, data: Path) -> dict[str, float]:
    """AP and AR of the network's masks on images/NAME.jpg with instances/NAME.png, each image alone.

    Raises:
        SourceError: the folder has another layout, or an image or its annotation cannot be read.
    """
    # Imported here: robots may score sequences without pycocotools.
    from learning.average_precision import Answer, AveragePrecision

    images = sorted((data / "images").glob("*.jpg")) + sorted((data / "images").glob("*.png"))
    if not images:
        raise SourceError(f"{data} has no images/*.jpg: --metrics coco needs images/ and instances/")
    network, judge = Network(model), AveragePrecision()
    for path in track(images, description="images", console=Console(stderr=True)):
        image = cv2.imread(str(path))
        truth = cv2.imread(str(data / "instances" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if image is None or truth is None or truth.shape[:2] != image.shape[:2]:
            raise SourceError(f"{path} or its instances/{path.stem}.png cannot be read, or their sizes differ")
        network.reset()
        out = network.step(image)
        masks = np.array([_enlarged(mask, truth.shape[:2]) > 0 for mask in out["masks"][0]])
        judge.add(truth if truth.ndim == 2 else truth[..., 0], Answer(masks, out["scores"][0]))
    return judge.figures()


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="ONNX file")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="JPEGImages/ and Annotations/ (davis), or images/ and instances/ (coco)",
    )
    parser.add_argument("--metrics", required=True, help=" | ".join(METRICS))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    try:
        if args.metrics not in METRICS:
            raise UsageError(f"--metrics {args.metrics} is unknown: use one of {', '.join(METRICS)}")
        content: Any
        if args.metrics == "coco":
            content = score_coco(args.model, args.data)
            table = Table(*content)
            table.add_row(*(f"{v:.3f}" for v in content.values()))
        else:
            scores = score_davis(args.model, args.data)
            content, table = [asdict(s) for s in scores], _davis_table(scores)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(content, indent=1))
    return 0


def _davis_table(scores: list[SequenceScore]) -> Table:
    table = Table("sequence", "frames", "binary J", "top mask", "best mask", "best of all")
    for s in scores:
        table.add_row(s.name, str(s.frames), *(f"{v:.3f}" for v in (s.binary, s.top, s.best_mask, s.best_any)))
    means = np.mean([(s.binary, s.top, s.best_mask, s.best_any) for s in scores], axis=0)
    table.add_row("mean", str(sum(s.frames for s in scores)), *(f"{v:.3f}" for v in means))
    return table


if __name__ == "__main__":
    sys.exit(main())
