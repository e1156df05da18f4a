"""What all adapters share: the face of the model contract over a runner of another kind of model."""

import ast
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from engine.errors import ModelError
from engine.perceive.adapters.letterbox import Content, Letterbox
from engine.perceive.backends.runner import Runner, Shape
from engine.perceive.contract import CONTRACT_VERSION

GRID = (64, 112)
"""Working grid of adapted models: the shipped model's, which the selection's speed was measured on."""

PROPOSALS = 100
"""Masks per frame unless the metadata says otherwise: as many as torchvision's detectors give."""

OUTSIDE = np.float32(-6.0)
"""Logit outside of a detection's box, and the least one inside."""


class ForeignRunner(ABC):
    """A runner that follows the model contract with the outputs `masks` and `scores` of another kind of model.

    Args:
        raw: the open model.
        where: the model, for messages.

    Attributes:
        name, device: of the raw runner.
        inputs, outputs, metadata: as the contract asks for.

    Raises:
        ModelError: an input or metadata that cannot be used.
    """

    expects: ClassVar[str]
    """What files of this kind look like, for messages."""

    normalisation: ClassVar[dict[str, Any]]
    place: ClassVar[str]
    fill: ClassVar[tuple[float, float, float]]
    """Colour around the frame, RGB in 0 ... 255, and the two above: where the metadata says nothing else."""

    def __init__(self, raw: Runner, where: str) -> None:
        self._raw = raw
        self._where = where
        self.name, self.device = raw.name, raw.device
        metadata = raw.metadata
        self._input, self._batched, size = _image_input(raw, where)
        try:
            values = json.loads(metadata["normalisation"]) if "normalisation" in metadata else self.normalisation
            fill = [
                (value * values["scale"] - mean) / std
                for value, mean, std in zip(self.fill, values["mean"], values["std"], strict=True)
            ]
            self._proposals = int(metadata.get("proposals", PROPOSALS))
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            raise ModelError(f"model {where}: metadata 'normalisation' or 'proposals' is not readable") from None
        self._letterbox = Letterbox(size, metadata.get("letterbox", self.place), (fill[0], fill[1], fill[2]))
        self._size = size
        self.inputs: dict[str, Shape] = {"image": (1, 3, *size), "aspect": (1,)}
        self.outputs: dict[str, Shape] = {"masks": (1, self._proposals, *GRID), "scores": (1, self._proposals)}
        self.metadata = {"contract": CONTRACT_VERSION, "normalisation": json.dumps(values)}

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Runner.run`; fewer detections than promised are filled up with empty masks of score 0."""
        content = self._letterbox.content(float(feed["aspect"][0]))
        image = self._letterbox.put(feed["image"], content)
        raw = self._raw.run({self._input: image if self._batched else image[0]}, self._wanted())
        found, found_scores = self._decode(raw, content)
        if len(found_scores) and not (found_scores.min() >= 0 and found_scores.max() <= 1):
            raise ModelError(
                f"model {self._where}: scores from {found_scores.min():.3g} to {found_scores.max():.3g}, 0 to 1 are "
                "needed: export it with its sigmoid or softmax"
            )
        masks = np.full((1, self._proposals, *GRID), OUTSIDE, np.float32)
        scores = np.zeros((1, self._proposals), np.float32)
        masks[0, : len(found)], scores[0, : len(found)] = found, found_scores
        return {"masks": masks, "scores": scores}

    @abstractmethod
    def _wanted(self) -> list[str]:
        """Raw outputs that are needed."""

    @abstractmethod
    def _decode(self, raw: Mapping[str, np.ndarray], content: Content) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [n, *GRID] and scores float32 [n] of at most `self._proposals` detections, best first."""

    @classmethod
    def refuse(cls, runner: Runner, where: str) -> ModelError:
        """The error for a file that does not look like one of this kind."""
        found = ", ".join(f"{name} {list(shape)}" for name, shape in runner.outputs.items())
        return ModelError(f"model {where}: {cls.expects} expected, outputs are {found}; see docs/third_party.md")


def _image_input(raw: Runner, where: str) -> tuple[str, bool, tuple[int, int]]:
    """Name of the image input, whether it has a batch axis, and its (h, w)."""
    if len(raw.inputs) != 1:
        raise ModelError(f"model {where}: inputs {sorted(raw.inputs)}, one picture is expected")
    name, shape = next(iter(raw.inputs.items()))
    stated = _stated_size(raw.metadata)
    if len(shape) == 4 and isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(f"model {where}: input '{name}' takes {shape[0]} pictures; export it with a batch of 1")
    if len(shape) not in (3, 4) or (isinstance(shape[-3], int) and shape[-3] != 3):
        raise ModelError(f"model {where}: input '{name}' is {list(shape)}, [1, 3, h, w] or [3, h, w] is expected")
    size = [stated[i] if stated and not isinstance(n, int) else n for i, n in enumerate(shape[-2:])]
    if not all(isinstance(n, int) for n in size):
        raise ModelError(
            f"model {where}: input '{name}' is {list(shape)}: height and width must be fixed; export it again without "
            "dynamic axes"
        )
    return name, len(shape) == 4, (int(size[0]), int(size[1]))


def _stated_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """(h, w) as some exporters write it beside free axes: `imgsz`, a list."""
    try:
        height, width = ast.literal_eval(metadata.get("imgsz", ""))
        return int(height), int(width)
    except (ValueError, SyntaxError, TypeError):
        return None
