"""What supplies the background map: the model itself, another network in its place, or nothing."""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engine.errors import ModelError, UsageError
from engine.perceive.backends.choose import choose, open_runner
from engine.perceive.backends.runner import ModelFile, Request
from engine.perceive.contract import Contract
from engine.perceive.motion import Motion, network_features
from engine.perceive.network import DEFAULT_MODEL

TEACHERS = ("amd", "mug")
"""Networks that learned from unlabelled video alone, looked for as NAME.onnx beside the default model."""

CUES = ("network", *TEACHERS, "seeds", "uniform")
"""What `--background` knows by name; anything else is a file or a registry."""


class BackgroundCue(Protocol):
    """A probability of background for every frame; keeps nothing between frames, so pipelines may share it."""

    def map(self, image: np.ndarray, motion: Motion | None, grid: tuple[int, int]) -> np.ndarray:
        """float32 [*grid] in [0, 1] of a frame uint8 [H, W, 3] BGR; motion None in the first frame of a shot."""


class UniformBackground:
    """Knows nothing: one half everywhere, so that the selection goes by scores, flow and consistency."""

    def map(self, image: np.ndarray, motion: Motion | None, grid: tuple[int, int]) -> np.ndarray:
        """One half, float32 [*grid]."""
        return np.full(grid, 0.5, np.float32)


class BackgroundNetwork:
    """A model file whose `background` output takes the place of the model's; other outputs are not asked for.

    Args:
        path: ONNX file that follows the model contract: input `image`, with or without `motion`, output `background`.
        device: "auto", "cpu" or "cuda".
        threads: processor threads it may use.

    Attributes:
        size: (h, w) of the image input.
        name, hash: identify the model.

    Raises:
        ModelError: missing or corrupt file, or one without a background map.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int = 2) -> None:
        if not path.is_file():
            raise ModelError(f"--background {path}: no such file; give an ONNX file, or one of {', '.join(CUES)}")
        backend, chosen_device, _ = choose(path.suffix, "auto", device)
        model = ModelFile.read(path)
        self._runner = open_runner(Request(model, chosen_device, threads), backend)
        self._contract = Contract.read(self._runner, str(path), quiet=True)
        if "background" not in self._contract.outputs:
            raise ModelError(
                f"--background {path}: the model has no output 'background'; it has {self._runner.outputs}"
            )
        self.name, self.hash, self.size = path.stem, model.hash, self._contract.size
        self._image = np.empty((1, 3, *self.size), np.float32)

    def map(self, image: np.ndarray, motion: Motion | None, grid: tuple[int, int]) -> np.ndarray:
        """float32 [*grid] in [0, 1] of a frame uint8 [H, W, 3] BGR.

        Raises:
            ModelError: the map holds values that are not finite.
        """
        contract, (h, w) = self._contract, self.size
        shrinks = image.shape[0] >= h and image.shape[1] >= w
        small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        contract.normalise(small, self._image[0])
        feed = {"image": self._image}
        if contract.uses_motion:
            feed["motion"] = network_features(motion, contract.motion_size)[None]
        if contract.uses_aspect:
            feed["aspect"] = np.array([image.shape[1] / image.shape[0]], np.float32)
        found = self._runner.run(feed, ("background",))["background"][0, 0]
        if not np.isfinite(found.sum()):
            raise ModelError(f"background model {self.name}: its map contains values that are not finite")
        if found.shape != grid:
            found = cv2.resize(found, grid[::-1], interpolation=cv2.INTER_LINEAR)
        return np.clip(found, 0.0, 1.0)


def teacher_file(name: str) -> Path:
    """Where the network of a teacher is looked for."""
    return DEFAULT_MODEL.parent / f"{name}.onnx"


def open_background(name: str, *, device: str = "auto", threads: int = 2) -> BackgroundCue | None:
    """The cue of `--background NAME`; None where the model's own map stays (network, seeds).

    Args:
        name: one of `CUES`, or an ONNX file.

    Raises:
        UsageError: neither.
        ModelError: the file is missing or has no background map.
    """
    if name in ("network", "seeds"):
        return None
    if name == "uniform":
        return UniformBackground()
    if name in TEACHERS:
        path = teacher_file(name)
        if not path.is_file():
            raise ModelError(
                f"--background {name}: none is shipped; train one (docs/teachers.md), then give its FILE.onnx"
                f" or put it at {path}"
            )
        return BackgroundNetwork(path, device=device, threads=threads)
    if not name.endswith(".onnx"):
        raise UsageError(f"--background {name}: must be {', '.join(CUES)}, or a FILE.onnx, or the folder of a registry")
    return BackgroundNetwork(Path(name), device=device, threads=threads)


def background_settings(name: str) -> dict[str, object]:
    """Configuration that goes with `--background NAME`.

    `seeds`: where the memories of the seeds say anything, P_FG takes the place of the map that they were ranked with
    (Seeds, Eq. 15), instead of moving it a quarter of the way.
    """
    return {"seeds.correction": 1.0, "seeds.correct_known_only": False} if name == "seeds" else {}
