"""python -m benchmarks.embedding_size: how long the pixel embedding should be.

Heads of several lengths are trained side by side with the pairwise loss of Eq. 2 on the frozen features of one
network, then asked about pairs of pixels of held-out samples: same object or not.
"""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine
from engine.errors import EngineError, ModelError
from learning.batches import Batch, Batches
from learning.losses import embedding_pairs, similarity
from learning.networks.compact import Compact, CompactConfig
from learning.synthesis.shards import Shards

_BATCH, _CROP = 8, (192, 320)
_RATE = 3e-3
_PAIRS = 4000
"""Pairs of each kind drawn from one held-out sample batch."""


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a pair of one object is more alike than a pair of two (ties count half)."""
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = rank[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


class _Heads:
    """The frozen network and a fresh 1x1 head per length."""

    def __init__(self, checkpoint: Path, sizes: list[int], seed: int) -> None:
        try:
            stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self._network = Compact(CompactConfig(**stored["config"])).eval()
            self._network.load_state_dict(stored["state"])
        except (OSError, LookupError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:80]
            raise ModelError(f"--checkpoint {checkpoint}: not a model.pt of this program ({reason})") from None
        self._network.requires_grad_(False)
        torch.manual_seed(seed)
        channels = self._network.embedding.in_channels
        self.heads = nn.ModuleDict({str(size): nn.Conv2d(channels, size, 1) for size in sizes})
        for head in self.heads.values():
            nn.init.normal_(head.weight, std=0.02)
        self._features: list[Tensor] = []
        self._network.embedding.register_forward_pre_hook(lambda _, inputs: self._features.append(inputs[0]))

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings [B, E, h, w] by head; "shipped" is the network's own."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            own = self._network.maps(batch.image, batch.motion).embedding
        features = self._features.pop().float()
        return {"shipped": own.float(), **{name: head(features) for name, head in self.heads.items()}}


def _pairs(ids: Tensor, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Flat pixel indices int64 [n, 2] of pairs within an object, of two objects, and of object and background."""
    flat = ids.numpy().ravel()
    found: dict[str, np.ndarray] = {}
    first, second = rng.integers(0, len(flat), (2, 40 * _PAIRS))
    a, b = flat[first], flat[second]
    for kind, which in (
        ("same", (a > 0) & (a == b)),
        ("objects", (a > 0) & (b > 0) & (a != b)),
        ("background", (a > 0) & (b == 0)),
    ):
        found[kind] = np.stack([first[which], second[which]], axis=1)[:_PAIRS]
    return found


def measure(checkpoint: Path, shards: Path, sizes: list[int], steps: int, samples: int, seed: int) -> dict[str, Any]:
    """Train the heads, then the separation of object pairs and of object and background for each."""
    heads = _Heads(checkpoint, sizes, seed)
    optimiser = torch.optim.AdamW(heads.heads.parameters(), lr=_RATE)
    batches = Batches(Shards(shards), _BATCH, _CROP, seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        batch = batches.draw()
        outputs = heads(batch)
        loss = torch.stack([embedding_pairs(outputs[name], batch.ids) for name in heads.heads]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    rng = np.random.default_rng(seed)
    alike: dict[str, dict[str, list[np.ndarray]]] = {}
    seen = 0
    for batch in Batches(Shards(shards, "held"), 1, _CROP, seed).once():
        if seen == samples:
            break
        pairs = _pairs(batch.ids[0], rng)
        if min(len(rows) for rows in pairs.values()) < 50:
            continue
        seen += 1
        with torch.no_grad():
            for name, embedding in heads(batch).items():
                rows = embedding[0].flatten(1).t()
                for kind, index in pairs.items():
                    r = similarity(rows[index[:, 0]], rows[index[:, 1]]).numpy()
                    alike.setdefault(name, {}).setdefault(kind, []).append(r)
    result = {}
    for name, kinds in alike.items():
        same = kinds["same"]
        result[name] = {
            against: round(
                float(np.mean([area_under_curve(p, n) for p, n in zip(same, kinds[against], strict=True)])), 4
            )
            for against in ("objects", "background")
        }
    return {"held_out_samples": seen, "steps": steps, "auc": result}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding_size", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="model.pt of python -m learning.pretrain")
    parser.add_argument("--data", type=Path, required=True, help="shards of python -m learning.synthesis")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--samples", type=int, default=60, help="held-out samples with two objects or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        result = measure(args.checkpoint, args.data, args.sizes, args.steps, args.samples, args.seed)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("area under the curve, same object against ...")
    for name, row in result["auc"].items():
        print(f"  {name:>8}: another object {row['objects']:.3f}, background {row['background']:.3f}")
    return machine.finish(args.json, result)


if __name__ == "__main__":
    sys.exit(main())
