"""The model contract: what a runner's inputs, outputs and metadata must be, and what they mean for the engine."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numba
import numpy as np

from engine.errors import ModelError
from engine.perceive.backends.runner import Runner, Shape
from engine.perceive.motion import FEATURE_CHANNELS, MOTION_DEFINITION

CONTRACT_VERSION = "1"
OUTPUTS = ("masks", "scores", "background", "embedding")
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1 / 255}

_log = logging.getLogger("unseen.model")


@dataclass(frozen=True)
class Contract:
    """What the engine needs to know of a model.

    Attributes:
        size: (h, w) of the image input.
        grid: (h, w) of the outputs, the working grid.
        motion_size: (h, w) of the motion input; equal to `size` where there is none.
        uses_motion: whether there is one.
        uses_aspect: whether the model asks for the frame's width / height.
        outputs: names of the outputs to ask for.
        gain, offset: float32 [3, 1, 1], RGB: the input is pixel x gain + offset.
        any_batch: whether several frames can go through at once.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    motion_size: tuple[int, int]
    uses_motion: bool
    uses_aspect: bool
    outputs: tuple[str, ...]
    gain: np.ndarray
    offset: np.ndarray
    any_batch: bool

    def normalise(self, image: np.ndarray, out: np.ndarray) -> None:
        """Write an image uint8 [h, w, 3] BGR as the model's input float32 [3, h, w] RGB."""
        # Planes first: one pass over interleaved colours cannot take several pixels at a time.
        for plane, channel in zip(cv2.split(image), (2, 1, 0), strict=True):
            _scale(plane, self.gain[channel, 0, 0], self.offset[channel, 0, 0], out[channel])

    @classmethod
    def read(cls, runner: Runner, where: str, *, quiet: bool = False) -> "Contract":
        """Check a model against the contract; an output that is missing switches its cue off with one log line.

        Args:
            where: the model, for messages.
            quiet: no log lines, for a model of which one output is wanted.

        Raises:
            ModelError: what does not follow the contract.
        """
        metadata, inputs = runner.metadata, runner.inputs
        version = metadata.get("contract")
        if version is not None and version != CONTRACT_VERSION:
            raise ModelError(f"model {where}: contract version {version}, this engine reads {CONTRACT_VERSION}")
        size = _image_size(inputs, where)
        motion_size = _motion_size(inputs, metadata, where)
        if unknown := set(inputs) - {"image", "motion", "aspect"}:
            raise ModelError(
                f"model {where}: unknown inputs {sorted(unknown)}; the contract has image, motion and aspect"
            )
        if inputs.get("aspect", (1,)) != (1,):
            raise ModelError(f"model {where}: input 'aspect' must be [1], it is {list(inputs['aspect'])}")
        outputs = _usable_outputs(runner.outputs, inputs["image"][0], where)
        gain, offset = _normalisation(metadata, where)
        for name in set() if quiet else set(OUTPUTS) - set(outputs):
            _log.warning("model %s has no output '%s': that cue is off", where, name)
        return cls(
            size=size,
            grid=_grid({name: runner.outputs[name] for name in outputs}, where),
            motion_size=motion_size or size,
            uses_motion=motion_size is not None,
            uses_aspect="aspect" in inputs,
            outputs=outputs,
            gain=gain,
            offset=offset,
            any_batch=not isinstance(inputs["image"][0], int) and "aspect" not in inputs,
        )


@numba.njit(cache=True, nogil=True)
def _scale(plane, gain, offset, out):  # type: ignore[no-untyped-def]
    """plane x gain, rounded, + offset, in one pass; no temporary arrays."""
    pixels, values = plane.reshape(-1), out.reshape(-1)
    for i in range(pixels.size):
        values[i] = np.float32(pixels[i]) * gain + offset


def _image_size(inputs: Mapping[str, Shape], where: str) -> tuple[int, int]:
    shape = inputs.get("image")
    if shape is None or len(shape) != 4 or shape[1] != 3 or not all(isinstance(n, int) for n in shape[2:]):
        raise ModelError(
            f"model {where}: input 'image' must be [1, 3, h, w] with fixed h, w; inputs are {dict(inputs)}"
        )
    return int(shape[2]), int(shape[3])


def _motion_size(inputs: Mapping[str, Shape], metadata: Mapping[str, str], where: str) -> tuple[int, int] | None:
    """Size of the motion input, None where there is none."""
    if "motion" not in inputs:
        return None
    channels, *size = inputs["motion"][1:] or (None,)
    if len(size) != 2 or not all(isinstance(n, int) for n in size):
        raise ModelError(f"model {where}: input 'motion' must be [1, 5, h, w] with fixed h, w; it is {dict(inputs)}")
    definition = metadata.get("motion", "not stated")
    if channels != FEATURE_CHANNELS or definition != MOTION_DEFINITION:
        raise ModelError(
            f"model {where}: expects motion '{definition}' with {channels} channels, this engine "
            f"computes '{MOTION_DEFINITION}' with {FEATURE_CHANNELS}: export the model again"
        )
    return int(size[0]), int(size[1])


def _usable_outputs(outputs: Mapping[str, Shape], batch: int | str, where: str) -> tuple[str, ...]:
    names = [name for name in OUTPUTS if name in outputs]
    if "masks" not in outputs and "scores" in outputs:
        names.remove("scores")  # scores of nothing
    for name in names:
        shape, rank = outputs[name], 2 if name == "scores" else 4
        # A free batch keeps its name only where shapes are inferred; 1 and free are both fine.
        fits = shape[:1] == (1,) if batch == 1 else isinstance(batch, str) and not isinstance(shape[0], int)
        if len(shape) != rank or not fits:
            raise ModelError(
                f"model {where}: output '{name}' is {list(shape)}, expected rank {rank} and the batch of the image, "
                "1 or free"
            )
    if "scores" in names and outputs["scores"][1] != outputs["masks"][1]:
        raise ModelError(f"model {where}: {outputs['masks'][1]} masks but {outputs['scores'][1]} scores")
    if not {"masks", "background"} & set(names):
        raise ModelError(f"model {where}: outputs {sorted(outputs)} contain neither 'masks' nor 'background'")
    return tuple(names)


def _grid(outputs: Mapping[str, Shape], where: str) -> tuple[int, int]:
    grids = {tuple(shape[-2:]) for name, shape in outputs.items() if name != "scores"}
    if len(grids) != 1 or not all(isinstance(n, int) for n in next(iter(grids))):
        raise ModelError(f"model {where}: outputs must share one fixed grid, found {sorted(map(str, grids))}")
    height, width = next(iter(grids))
    return int(height), int(width)


def _normalisation(metadata: Mapping[str, str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """(v * scale - mean) / std folded into one multiplication and one addition per channel."""
    try:
        values = json.loads(metadata.get("normalisation", "null")) or _IMAGENET
        mean, std = np.asarray(values["mean"]), np.asarray(values["std"])
        gain = (values["scale"] / std).astype(np.float32).reshape(3, 1, 1)
        return gain, (-mean / std).astype(np.float32).reshape(3, 1, 1)
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"model {where}: metadata 'normalisation' is not readable") from None
