"""Which tensors of the network belong to which part."""

from collections.abc import Sequence

import torch

from learning.networks.compact import Compact

_HEADS = {
    "proposals": ("centre", "heat", "kernels", "features", "votes"),
    "background": ("foreground",),
    "embedding": ("embedding",),
}


def part_of(name: str) -> str:
    """Part of the parameter or module `name`; what is no head is trunk."""
    first = name.split(".")[0]
    return next((part for part, modules in _HEADS.items() if first in modules), "trunk")


def choose_parts(network: Compact, parts: Sequence[str]) -> list[torch.nn.Parameter]:
    """Let the given parts learn and nothing else; returns their parameters."""
    chosen = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


def train_mode(network: Compact) -> None:
    """Training mode, except that normalisation keeps the base's statistics.

    A few hundred steps of small, mixed batches would estimate them worse, and they are what the old data rests on.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
