"""Training of the base on stills of the seen family, and fine-tuning on mined frames with replay of those stills."""

import copy
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.unseen.detector import no_motion
from benchmarks.unseen.plan import SIZE
from benchmarks.unseen.world import Background, Pictures, over
from learning.batches import MEAN, STD, Batch, Prefetch, targets
from learning.losses import proposal_losses, total
from learning.networks.compact import Compact, CompactConfig
from learning.synthesis.sample import LABEL_STRIDE, MAX_INSTANCES, Kind, Origin
from learning.synthesis.shapes import Rng

IGNORED_ID = MAX_INSTANCES - 1
"""Id of pixels about which a label says nothing; no loss looks at them."""

_KINDS = np.full(MAX_INSTANCES, Kind.STATIC, np.uint8)
_KINDS[0], _KINDS[IGNORED_ID] = Kind.ABSENT, Kind.UNSURE

_SAVE_EVERY_S = 30.0
_WARM_UP_STEPS = 60


@dataclass(frozen=True)
class LabelledFrame:
    """Image uint8 [h, w, 3] BGR with ids uint8 [h, w]: 0 = background, IGNORED_ID = open."""

    image: np.ndarray
    ids: np.ndarray


def _affine(rng: Rng) -> np.ndarray:
    """A random flip, zoom and shift of the frame, float64 [2, 3]."""
    scale = float(np.clip(np.exp(rng.normal(0, 0.18)), 0.7, 1.4))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[mirror * scale, 0], [0, scale]])
    centre = np.array([SIZE[1], SIZE[0]]) / 2
    shift = rng.normal(0, 0.05, 2) * (SIZE[1], SIZE[0])
    return np.hstack([linear, (centre + shift - linear @ centre)[:, None]])


def _colours(rng: Rng) -> np.ndarray:
    """Lookup table float32 [256, 1, 3] from RGB bytes to network input, with a random change of light."""
    levels = np.repeat(np.linspace(0, 1, 256)[:, None], 3, axis=1)
    gain, lift = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.05, 3)), rng.normal(0, 0.02)
    levels = np.clip(levels ** np.exp(rng.normal(0, 0.15)) * gain + lift, 0, 1)
    return ((levels - MEAN) / STD).astype(np.float32)[:, None]


def _fields(rng: Rng, image: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    small = np.ascontiguousarray(ids[::LABEL_STRIDE, ::LABEL_STRIDE])
    # Every pixel of a pile counts as labelled, what is open is marked in the ids.
    fields = targets(small, _KINDS, Origin.PILE, False, rng)
    fields["image"] = cv2.LUT(np.ascontiguousarray(image[..., ::-1]), _colours(rng))
    return fields


class Mixture:
    """Endless batches: composites of seen stills, and mined frames if there are any.

    Args:
        stills: of the seen family; their layers are put over random `backgrounds`.
        mined: labelled frames, may be empty.
        share: part of a batch that is mined.
    """

    def __init__(
        self,
        stills: Pictures,
        backgrounds: list[np.ndarray],
        mined: Sequence[LabelledFrame],
        share: float,
        batch: int,
        rng: Rng,
    ) -> None:
        self._stills, self._backgrounds, self._mined = stills, backgrounds, mined
        self._from_mined = round(share * batch) if len(mined) else 0
        self._batch, self._rng = batch, rng

    def _still(self) -> dict[str, np.ndarray]:
        rng = self._rng
        index = int(rng.integers(0, len(self._stills)))
        affine = _affine(rng)
        layer = cv2.warpAffine(self._stills.layers[index], affine, SIZE[::-1], flags=cv2.INTER_LINEAR)
        ids = cv2.warpAffine(self._stills.ids[index], affine, SIZE[::-1], flags=cv2.INTER_NEAREST)
        picture = self._backgrounds[int(rng.integers(0, len(self._backgrounds)))]
        return _fields(rng, over(layer, Background(rng, picture).frame(0.0)), ids)

    def _frame(self) -> dict[str, np.ndarray]:
        rng = self._rng
        frame = self._mined[int(rng.integers(0, len(self._mined)))]
        affine = _affine(rng)
        image = cv2.warpAffine(
            frame.image, affine, SIZE[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        ids = cv2.warpAffine(
            frame.ids,
            affine,
            SIZE[::-1],
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=IGNORED_ID,
        )
        return _fields(rng, image, ids)

    def draw(self) -> Batch:
        """One random batch."""
        samples = [self._frame() for _ in range(self._from_mined)]
        samples += [self._still() for _ in range(self._batch - self._from_mined)]
        fields = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}
        fields["image"] = fields["image"].permute(0, 3, 1, 2)
        return Batch(motion=no_motion(fields["image"]), **fields)


def new_network(config: CompactConfig, seed: int) -> Compact:
    """An untrained detector."""
    torch.manual_seed(seed)
    return Compact(config)


def read_network(path: Path) -> Compact:
    """A detector that `train` finished."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
    network = Compact(CompactConfig(**config))
    network.load_state_dict(content["state"])
    return network.eval()


def _save(path: Path, content: object) -> None:
    partial = path.with_suffix(".part")
    torch.save(content, partial)
    os.replace(partial, path)


@torch.no_grad()
def _follow(average: Compact, network: Compact, share: float) -> None:
    """Move the values of `average` by a share of the way to those of `network`."""
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, share)


def train(
    network: Compact,
    mixture: Mixture,
    steps: int,
    rate: float,
    out: Path,
    base: Compact | None = None,
    move: float = 1.0,
) -> None:
    """Train for so many updates and write the averaged network to `out`; interrupted, it goes on where it was.

    Args:
        rate: peak of the learning rate (AdamW, cosine).
        base: what is fine-tuned: the statistics of its normalisation stay, or a few mined frames would replace those of
            everything seen before; and
        move: how far from its weights (0) to the trained ones (1) the result lies.
    """
    if out.exists():
        return
    torch.manual_seed(steps)
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=rate
    )
    step, unfinished = 0, out.with_suffix(".last")
    if unfinished.exists():
        state = torch.load(unfinished, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    prefetch, saved = Prefetch(mixture), time.monotonic()
    try:
        while step < steps:
            warm = min(1.0, (step + 1) / min(_WARM_UP_STEPS, max(1, steps // 5)))
            for group in optimiser.param_groups:
                group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            _update(network, optimiser, prefetch.next(), base is not None)
            step += 1
            _follow(average, network, max(0.003, 3 / (30 + step)))
            if time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                _save(
                    unfinished,
                    {
                        "network": network.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                    },
                )
    finally:
        prefetch.close()
    if base is not None:
        _follow(average, base, 1 - move)
    _save(out, {"config": asdict(network.config), "state": average.state_dict()})
    unfinished.unlink(missing_ok=True)


def _update(network: Compact, optimiser: torch.optim.Optimizer, batch: Batch, keep_statistics: bool) -> None:
    """One update."""
    network.train()
    if keep_statistics:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.maps(batch.image.contiguous(memory_format=torch.channels_last), batch.motion)
    loss = total(proposal_losses(network, maps, batch))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
