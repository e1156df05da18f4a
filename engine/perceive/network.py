"""The onnxruntime runner: one model file that follows the model contract becomes cues for one frame."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from engine.errors import ModelError
from engine.perceive.motion import FEATURE_CHANNELS, MOTION_DEFINITION

CONTRACT_VERSION = "1"
DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "models" / "default.onnx"
OUTPUTS = ("masks", "scores", "background", "embedding")

_log = logging.getLogger("unseen.model")
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1 / 255}


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
        path: ONNX file.
        device: "auto", "cpu" or "cuda"; asking for cuda where there is none is an error, not a fallback.
        backend: "auto" or "onnxruntime".
        threads: threads onnxruntime may use.

    Attributes:
        size: (h, w) of the image input; grid: (h, w) of the outputs, the working grid.
        motion_size: (h, w) of the motion input.
        name, hash, generation: identify the model on the wire.

    Raises:
        ModelError: missing or corrupt file, inputs or outputs that do not follow the contract, or a
            backend or device that is not there.
    """

    def __init__(self, path: Path, *, device: str = "auto", backend: str = "auto", threads: int = 2) -> None:
        if backend not in ("auto", "onnxruntime"):
            raise ModelError(f"backend '{backend}' is not available here (available: onnxruntime)")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"model {path}: {error.strerror or error}") from None
        self.name = path.stem
        self.hash = hashlib.sha256(content).hexdigest()[:12]
        self.generation = 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Spinning worker threads steal the second core from capture and selection and triple the p99.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=_providers(device))
        except ModelError:
            raise
        except Exception as error:  # onnxruntime has no public base class for its errors
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"model {path}: not a usable ONNX file ({reason})") from None
        self._read_contract(path)

    def _read_contract(self, path: Path) -> None:
        metadata = self._session.get_modelmeta().custom_metadata_map
        version = metadata.get("contract")
        if version is not None and version != CONTRACT_VERSION:
            raise ModelError(f"model {path}: contract version {version}, this engine reads {CONTRACT_VERSION}")
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        shape = inputs.get("image")
        if shape is None or len(shape) != 4 or shape[1] != 3 or not all(isinstance(n, int) for n in shape[2:]):
            raise ModelError(f"model {path}: input 'image' must be [1, 3, h, w] with fixed h, w; inputs are {inputs}")
        self.size = (int(shape[2]), int(shape[3]))
        self.uses_motion = "motion" in inputs
        self.motion_size = self.size
        if self.uses_motion:
            channels, *motion_size = inputs["motion"][1:]
            if len(motion_size) != 2 or not all(isinstance(n, int) for n in motion_size):
                raise ModelError(f"model {path}: input 'motion' must be [1, 5, h, w] with fixed h, w; it is {inputs}")
            self.motion_size = (int(motion_size[0]), int(motion_size[1]))
            definition = metadata.get("motion", "not stated")
            if channels != FEATURE_CHANNELS or definition != MOTION_DEFINITION:
                raise ModelError(
                    f"model {path}: expects motion '{definition}' with {channels} channels, this engine "
                    f"computes '{MOTION_DEFINITION}' with {FEATURE_CHANNELS}: export the model again"
                )
        unknown = set(inputs) - {"image", "motion"}
        if unknown:
            raise ModelError(f"model {path}: unknown inputs {sorted(unknown)}; the contract has image and motion")
        self._outputs = [name for name in OUTPUTS if name in outputs]
        if "masks" not in outputs and "scores" in outputs:
            self._outputs.remove("scores")  # scores of nothing
        for name in self._outputs:
            rank = 2 if name == "scores" else 4
            if len(outputs[name]) != rank or outputs[name][0] != 1 or inputs["image"][0] != 1:
                raise ModelError(f"model {path}: output '{name}' is {outputs[name]}, expected rank {rank} and batch 1")
        if "scores" in self._outputs and outputs["scores"][1] != outputs["masks"][1]:
            raise ModelError(f"model {path}: {outputs['masks'][1]} masks but {outputs['scores'][1]} scores")
        if not {"masks", "background"} & set(self._outputs):
            raise ModelError(f"model {path}: outputs {sorted(outputs)} contain neither 'masks' nor 'background'")
        grids = {tuple(outputs[n][-2:]) for n in self._outputs if n != "scores"}
        if len(grids) != 1 or not all(isinstance(n, int) for n in next(iter(grids))):
            raise ModelError(f"model {path}: outputs must share one fixed grid, found {sorted(map(str, grids))}")
        height, width = next(iter(grids))
        self.grid = (int(height), int(width))
        for name in set(OUTPUTS) - set(self._outputs):
            _log.warning("model %s has no output '%s': that cue is off", self.name, name)
        try:
            normalisation = json.loads(metadata.get("normalisation", "null")) or _IMAGENET
            mean, std = np.asarray(normalisation["mean"]), np.asarray(normalisation["std"])
            # (v * scale - mean) / std folded into one multiplication and one addition per channel.
            self._gain = (normalisation["scale"] / std).astype(np.float32).reshape(3, 1, 1)
            self._offset = (-mean / std).astype(np.float32).reshape(3, 1, 1)
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"model {path}: metadata 'normalisation' is not readable") from None
        self._image = np.empty((1, 3, *self.size), np.float32)

    @property
    def providers(self) -> list[str]:
        """Execution providers in use."""
        return list(self._session.get_providers())

    def fit(self, image: np.ndarray) -> np.ndarray:
        """`image` (uint8 [H, W, 3] BGR) at the network's input size; the aspect ratio is not kept."""
        (height, width), (h, w) = image.shape[:2], self.size
        if (height, width) == (h, w):
            return image
        if height < h or width < w:
            return cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        # Up to a factor of three the four pixels of the bilinear kernel miss little of the area: within 0.4 gray levels
        # of INTER_AREA, at a tenth of its time. Beyond, average whole blocks first.
        factor = int(min(height / h, width / w) / 1.5)
        if factor > 1:
            image = cv2.resize(image, (w * factor, h * factor), interpolation=cv2.INTER_LINEAR)
            return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)

    def run(self, small: np.ndarray, features: np.ndarray | None) -> NetworkOutput:
        """One forward pass.

        Args:
            small: uint8 [h, w, 3] BGR at `size`.
            features: float32 [5, *motion_size] motion features, ignored by models without motion.
        """
        np.multiply(small[:, :, ::-1].transpose(2, 0, 1), self._gain, out=self._image[0])
        self._image[0] += self._offset
        feed = {"image": self._image}
        if self.uses_motion:
            if features is None:
                features = np.zeros((FEATURE_CHANNELS, *self.motion_size), np.float32)
            feed["motion"] = features[None]
        values = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        for name, value in values.items():
            # A sum is finite only if every value is; one pass, no temporary.
            if not np.isfinite(value.sum()):
                raise ModelError(f"model {self.name}: output '{name}' contains values that are not finite")
        return NetworkOutput(
            masks=values["masks"][0] if "masks" in values else None,
            scores=values["scores"][0] if "scores" in values else None,
            background=values["background"][0, 0] if "background" in values else None,
            embedding=values["embedding"][0] if "embedding" in values else None,
        )


def _providers(device: str) -> list[str]:
    available = onnxruntime.get_available_providers()
    if device == "cuda" or (device == "auto" and "CUDAExecutionProvider" in available):
        if "CUDAExecutionProvider" not in available:
            raise ModelError(
                f"device cuda: this onnxruntime offers {', '.join(available)}; "
                "install onnxruntime-gpu or use --device cpu"
            )
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
