"""The network: one model file that follows the model contract becomes cues for one frame."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import ModelError
from engine.perceive.adapters.adapt import adapt
from engine.perceive.backends.choose import choose, open_runner
from engine.perceive.backends.runner import ModelFile, Request, Runner
from engine.perceive.contract import CONTRACT_VERSION as CONTRACT_VERSION
from engine.perceive.contract import Contract
from engine.perceive.motion import FEATURE_CHANNELS

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "models" / "default.onnx"

_log = logging.getLogger("unseen.model")


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """What the network says; None where the model has no such output.

    Attributes:
        masks: float32 [N, h, w] logits.
        scores: float32 [N] in [0, 1].
        background: float32 [h, w] in [0, 1].
        embedding: float32 [E, h, w].
    """

    masks: np.ndarray | None
    scores: np.ndarray | None
    background: np.ndarray | None
    embedding: np.ndarray | None


def resolve_model(name: str | None) -> Path:
    """Path of a model given by path or by the name of a shipped model.

    Raises:
        ModelError: no such file, naming the shipped models.
    """
    if name is None:
        return DEFAULT_MODEL
    for candidate in (Path(name), DEFAULT_MODEL.parent / f"{name}.onnx"):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(p.stem for p in DEFAULT_MODEL.parent.glob("*.onnx"))) or "none"
    raise ModelError(f"model '{name}': no such file, and no shipped model of that name (shipped: {shipped})")


class Network:
    """A loaded model.

    Args:
        path: model file: ONNX, or what one of the backends reads.
        device: "auto", "cpu" or "cuda".
        backend: "auto" or one of `backends.choose.BACKENDS`. What is asked for and not there is an error, never a
            fallback; what "auto" chose, and why, is logged in one line.
        threads: processor threads the backend may use.
        precision: arithmetic of layers that are not quantised, see `backends.runner.Request`.
        rebuild_engines: replace a compiled engine that was made for another machine.
        model_format: whose layout the file has, one of `adapters.adapt.FORMATS`.
        spin: threads may spin within a pass, see `backends.runner.Request`.

    Attributes:
        size: (h, w) of the image input; grid: (h, w) of the outputs, the working grid.
        motion_size: (h, w) of the motion input.
        name, hash, generation: identify the model on the wire.

    Raises:
        ModelError: missing or corrupt file, inputs or outputs that do not follow the contract, or a
            backend or device that is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        backend: str = "auto",
        threads: int = 2,
        precision: str = "f32",
        rebuild_engines: bool = False,
        model_format: str = "auto",
        spin: bool = False,
    ) -> None:
        chosen, chosen_device, reason = choose(path.suffix, backend, device)
        request = Request(ModelFile.read(path), chosen_device, threads, precision, rebuild_engines, spin)
        runner = adapt(open_runner(request, chosen), model_format, str(path))
        if backend == "auto":
            _log.info("model %s: backend %s on %s, %s", path.stem, chosen, chosen_device, reason)
        self._take(runner, path.stem, request.model.hash, str(path))

    @classmethod
    def of(cls, runner: Runner, name: str, digest: str) -> "Network":
        """A network of a runner that is already open, such as one that adapts another kind of model.

        Raises:
            ModelError: inputs or outputs that do not follow the contract.
        """
        network = cls.__new__(cls)
        network._take(runner, name, digest, name)
        return network

    def _take(self, runner: Runner, name: str, digest: str, where: str) -> None:
        self._runner = runner
        self._contract = contract = Contract.read(runner, where)
        self.name = name
        self.hash = digest
        self.generation = 1
        self.size, self.grid, self.motion_size = contract.size, contract.grid, contract.motion_size
        self.uses_motion = contract.uses_motion
        self._image = np.empty((1, 3, *self.size), np.float32)

    @property
    def backend(self) -> str:
        """The backend in use, as `--backend` names it."""
        return self._runner.name

    @property
    def device(self) -> str:
        """The device in use, "cpu" or "cuda"."""
        return self._runner.device

    @property
    def any_batch(self) -> bool:
        """Whether `run_batch` takes several frames through the model at once."""
        return self._contract.any_batch

    def fit(self, image: np.ndarray) -> np.ndarray:
        """`image` (uint8 [H, W, 3] BGR) at the network's input size; the aspect ratio is not kept."""
        (height, width), (h, w) = image.shape[:2], self.size
        if (height, width) == (h, w):
            return image
        if height < h or width < w:
            return cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        # Area averaging by a whole factor is vectorised, by a fraction it is not: go through the nearest
        # multiple. Three times faster at 480p, and within a quarter of a gray level of INTER_AREA.
        factor = max(2, round(min(height / h, width / w)))
        multiple = cv2.resize(image, (w * factor, h * factor), interpolation=cv2.INTER_LINEAR)
        return cv2.resize(multiple, (w, h), interpolation=cv2.INTER_AREA)

    def run(self, small: np.ndarray, features: np.ndarray | None, aspect: float | None = None) -> NetworkOutput:
        """One forward pass.

        Args:
            small: uint8 [h, w, 3] BGR at `size`.
            features: float32 [5, *motion_size] motion features, ignored by models without motion.
            aspect: width / height of the frame before `fit`, for models that ask for it; None: as of `size`.
        """
        return self._forward([small], [features], aspect)[0]

    def run_batch(self, smalls: Sequence[np.ndarray], features: Sequence[np.ndarray | None]) -> list[NetworkOutput]:
        """Frames of several cameras, in one forward pass where the model's batch is free, else one by one.

        Args:
            smalls, features: per frame as for `run`.
        """
        if self.any_batch:
            return self._forward(smalls, features)
        return [self.run(small, feature) for small, feature in zip(smalls, features, strict=True)]

    def _still(self) -> np.ndarray:
        return np.zeros((FEATURE_CHANNELS, *self.motion_size), np.float32)

    def _forward(
        self, smalls: Sequence[np.ndarray], features: Sequence[np.ndarray | None], aspect: float | None = None
    ) -> list[NetworkOutput]:
        if len(self._image) != len(smalls):
            self._image = np.empty((len(smalls), 3, *self.size), np.float32)
        for plane, small in zip(self._image, smalls, strict=True):
            self._contract.normalise(small, plane)
        feed = {"image": self._image}
        if self.uses_motion:
            known = [self._still() if feature is None else feature for feature in features]
            feed["motion"] = known[0][None] if len(known) == 1 else np.stack(known)
        if self._contract.uses_aspect:
            feed["aspect"] = np.array([aspect or self.size[1] / self.size[0]], np.float32)
        values = self._runner.run(feed, self._contract.outputs)
        for name, value in values.items():
            # A sum is finite only if every value is; one pass, no temporary.
            if not np.isfinite(value.sum()):
                raise ModelError(f"model {self.name}: output '{name}' contains values that are not finite")
        return [
            NetworkOutput(
                masks=values["masks"][i] if "masks" in values else None,
                scores=values["scores"][i] if "scores" in values else None,
                background=values["background"][i, 0] if "background" in values else None,
                embedding=values["embedding"][i] if "embedding" in values else None,
            )
            for i in range(len(smalls))
        ]
