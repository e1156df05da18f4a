"""The engine with one part taken away, built from public parts: the engine itself has no switch for this."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import config as configuration
from engine.config import EngineConfig
from engine.perceive.network import Network, NetworkOutput, resolve_model
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.select.masks import conflicts, pack
from engine.select.selection import Commit, Selection, SelectionStep


class WithoutMotion(Network):
    """The network with its motion input zeroed; flow still reaches the seeds, the selection and the identities."""

    def run(self, small: np.ndarray, features: np.ndarray | None, aspect: float | None = None) -> NetworkOutput:
        """One forward pass on the image alone."""
        return super().run(small, None, aspect)


class WithoutImage(Network):
    """The network with its image input zero after normalisation, that is, the mean colour everywhere."""

    def run(self, small: np.ndarray, features: np.ndarray | None, aspect: float | None = None) -> NetworkOutput:
        """One forward pass on the motion alone."""
        mean_rgb = -self._contract.offset / self._contract.gain
        flat = np.broadcast_to(mean_rgb[::-1].transpose(1, 2, 0), small.shape)
        return super().run(flat, features, aspect)


class GreedySelection(Selection):
    """Each frame alone: masks in the order of their scores, no losses, no path, no waiting.

    A mask is taken when its score is at least `score_reference` and it excludes none already taken.
    """

    def step(self, percepts: Percepts, frame_index: int, image: np.ndarray | None = None) -> SelectionStep:
        """Decide this frame at once."""
        members = greedy(percepts.scores, percepts.masks, self._config.score_reference, self._config.overlap_allowed)
        commit = Commit(frame_index, members, exact=False, loss_bound=0.0, margin=0.0, lag=0)
        return SelectionStep(members, 0.0, [commit], [])

    def flush(self) -> list[Commit]:
        """Nothing waits."""
        return []


def greedy(scores: np.ndarray, masks: np.ndarray, least: float, overlap_allowed: float) -> tuple[int, ...]:
    """Members of the greedy answer, ascending: float [N] scores, bool [N, h, w] masks."""
    excludes = conflicts(pack(masks), overlap_allowed)
    taken: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if scores[index] >= least and not excludes[index, taken].any():
            taken.append(index)
    return tuple(sorted(taken))


@dataclass(frozen=True, slots=True)
class Ablation:
    """A variant of the engine.

    Attributes:
        name: row of the table.
        meaning: what is missing.
        model: name and hash of the model it runs.
        pipeline: makes a fresh engine.
    """

    name: str
    meaning: str
    model: str
    pipeline: Callable[[], Pipeline]


def ablations(config: EngineConfig, model: str | None, others: list[tuple[str, str]]) -> list[Ablation]:
    """Every variant of an engine.

    Args:
        config: of the engine that the variants are compared with.
        model: its model, name or file; None is the shipped one.
        others: (name, model) of variants that differ in the model, such as one trained without self-training.

    Raises:
        ModelError: a model that cannot be loaded.
    """
    path, threads = resolve_model(model), config.perceive.threads
    whole = Network(path, threads=threads)
    without_seeds = {"seeds.enabled": False}
    no_history = {"select.lag": 0, "select.lambda_consistency": 0.0, "select.lambda_flow": 0.0, **without_seeds}
    seedless, alone = configuration.apply(config, without_seeds), configuration.apply(config, no_history)
    out = [
        _variant("motion off", "motion input of the network zeroed", config, WithoutMotion(path, threads=threads)),
        _variant("image off", "image input zero after normalisation", config, WithoutImage(path, threads=threads)),
        Ablation(
            "selection off",
            f"each frame alone, best scores first down to {config.select.score_reference}, no losses",
            f"{whole.name} {whole.hash}",
            lambda: _greedy_pipeline(config, whole),
        ),
        _variant("seeds off", "no seed candidates, no memories, no tracked masks", seedless, whole),
        _variant("history off", "lag 0, no consistency, no flow loss, no seeds: each frame's cheapest", alone, whole),
    ]
    for name, other in others:
        out.append(_variant(name, f"model {Path(other).name}", config, Network(resolve_model(other), threads=threads)))
    return out


def _variant(name: str, meaning: str, config: EngineConfig, network: Network) -> Ablation:
    return Ablation(name, meaning, f"{network.name} {network.hash}", lambda: Pipeline(config, network))


def _greedy_pipeline(config: EngineConfig, network: Network) -> Pipeline:
    pipeline = Pipeline(config, network)
    pipeline.selection = GreedySelection(config.select)
    return pipeline
