"""How large a run is; everything that decides its figures besides the seed."""

from dataclasses import dataclass, field

from learning.networks.compact import CompactConfig

SIZE = (160, 288)
"""Height, width of every picture, which is the detector's input."""


def _detector() -> CompactConfig:
    return CompactConfig(
        stem=12,
        motion=4,
        widths=(16, 32, 48, 64),
        depths=(1, 1, 1),
        decoder=(48, 32, 16),
        features=12,
        embedding=8,
        proposals=32,
    )


@dataclass(frozen=True)
class Plan:
    """One seed's share of work.

    Attributes:
        train_stills: labelled stills of the seen family; composites of them are the base's training data.
        check_stills: further stills of the seen family, to choose score thresholds on.
        seen_stills, unseen_stills: held out, only scored.
        videos, frames: unlabelled videos of the unseen family and their length.
        label_every: one frame in so many becomes training data, as in the paper.
        base_steps, tune_steps: updates of the base and of every fine-tuning.
        batch: images per update.
        tune_share: part of a fine-tuning batch that is mined; the rest is replay of the seen stills. Half of it mined
            costs twice the seen AP that may be lost.
        base_rate, tune_rate: peaks of the learning rate.
        tune_move: how far the weights go from the base (0) to the fine-tuned ones (1); half way keeps most of what is
            gained and loses less of what was known.
        max_loss_bound: certificates above it (Eq. 2, nats per pixel) give no labels.
        detector: size of the network.
    """

    train_stills: int = 500
    check_stills: int = 60
    seen_stills: int = 120
    unseen_stills: int = 200
    videos: int = 60
    frames: int = 25
    label_every: int = 5
    base_steps: int = 1200
    tune_steps: int = 480
    batch: int = 16
    tune_share: float = 0.25
    base_rate: float = 2e-3
    tune_rate: float = 5e-4
    tune_move: float = 0.5
    max_loss_bound: float = 0.02
    detector: CompactConfig = field(default_factory=_detector)


QUICK = Plan(
    train_stills=24,
    check_stills=6,
    seen_stills=6,
    unseen_stills=6,
    videos=2,
    frames=11,
    base_steps=6,
    tune_steps=2,
    batch=4,
)
"""Tests the plumbing in under two minutes; its figures mean nothing."""
