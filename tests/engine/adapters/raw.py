"""Open models whose outputs are given: what an adapter sees of a file."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.perceive.backends.runner import Shape


class GivenRunner:
    """Answers every frame with the same arrays and keeps what it was fed.

    Args:
        size: (h, w) of its one input.
        values: names to outputs.
        metadata: of the file.
        shapes: what the file says of its outputs, where it is not what they are.
    """

    name, device = "given", "cpu"

    def __init__(
        self,
        size: tuple[int, int],
        values: Mapping[str, np.ndarray],
        metadata: Mapping[str, str] | None = None,
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        self.inputs: dict[str, Shape] = {"images": (1, 3, *size)}
        self.outputs: dict[str, Shape] = {name: value.shape for name, value in values.items()} | dict(shapes or {})
        self.metadata = dict(metadata or {})
        self.values = dict(values)
        self.fed: dict[str, np.ndarray] = {}

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.fed = dict(feed)
        return {name: self.values[name].copy() for name in outputs or self.values}
