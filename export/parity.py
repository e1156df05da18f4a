"""Proof that an exported model still gives the masks of the network it came from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from engine.errors import ModelError
from export.frames import NetworkInput
from export.graph import OUTPUTS
from learning.networks.compact import Compact

_TOP = 5
"""Masks per frame that are compared: the best-scored ones, those the engine will choose from."""

_MIN_SCORE = 0.05


@dataclass(frozen=True)
class Limits:
    """What an export may cost.

    Attributes:
        background_error: largest mean absolute difference of the background probability.
        mask_iou: smallest mean IoU of a top mask with its best match in the export.
        rank: smallest mean Spearman correlation of the scores of matched masks.
    """

    background_error: float
    mask_iou: float
    rank: float


LIMITS = {"onnx": Limits(0.002, 0.98, 0.98), "int8": Limits(0.03, 0.85, 0.8)}
"""fp32 differs by rounding only; INT8 may move borders by a fraction of a cell."""


@dataclass(frozen=True)
class Parity:
    """Measured agreement; fields as in `Limits`, over `frames` frames and `masks` masks."""

    background_error: float
    mask_iou: float
    rank: float
    frames: int
    masks: int

    def __str__(self) -> str:
        return (
            f"background error {self.background_error:.4f}, mask IoU {self.mask_iou:.3f}, "
            f"score rank {self.rank:.3f} "
            f"({self.frames} frames, {self.masks} masks)"
        )


def open_session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """CPU session whose threads do not spin: spinning costs a core and the tail of the latency."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1).astype(np.float32), b.reshape(len(b), -1).astype(np.float32)
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)


@torch.no_grad()
def measure(network: Compact, path: Path, frames: Iterable[NetworkInput]) -> Parity:
    """Compare the exported file with the network, frame by frame."""
    session = open_session(path)
    errors, ious, ranks, count = [], [], [], 0
    for frame in frames:
        count += 1
        expected = network(torch.from_numpy(frame.image), torch.from_numpy(frame.motion))
        masks, scores, background, _ = session.run(list(OUTPUTS), frame.feeds())
        errors.append(float(np.abs(background - expected.background.numpy()).mean()))
        reference = expected.scores[0].numpy()
        top = np.argsort(-reference)[:_TOP]
        truth = expected.masks[0].numpy()[top] > 0
        keep = (reference[top] >= _MIN_SCORE) & truth.any(axis=(1, 2))
        if not keep.any():
            continue
        overlap = _iou(truth[keep], masks[0] > 0)
        match = overlap.argmax(axis=1)
        ious.extend(overlap.max(axis=1).tolist())
        if keep.sum() >= 3:
            a, b = _ranks(reference[top][keep]), _ranks(scores[0][match])
            ranks.append(float(np.corrcoef(a, b)[0, 1]))
    mean_iou, mean_rank = (float(np.mean(v)) if v else 1.0 for v in (ious, ranks))
    return Parity(float(np.mean(errors)), mean_iou, mean_rank, count, len(ious))


def check(parity: Parity, limits: Limits, target: str) -> None:
    """Raise when a figure is beyond its limit.

    Raises:
        ModelError: one line with the measured value and the limit.
    """
    advice = "calibrate on more frames (--data) or export fp32 with --to onnx"
    if not parity.background_error <= limits.background_error:
        measured, limit = (
            f"background error {parity.background_error:.4f}",
            f"at most {limits.background_error}",
        )
    elif not parity.mask_iou >= limits.mask_iou:
        measured, limit = f"mask IoU {parity.mask_iou:.3f}", f"at least {limits.mask_iou}"
    elif not parity.rank >= limits.rank:
        measured, limit = f"score rank agreement {parity.rank:.3f}", f"at least {limits.rank}"
    else:
        return
    raise ModelError(f"{target} export differs from its network: {measured}, must be {limit}; {advice}")
