"""TensorRT through torch-tensorrt: a checkpoint compiled for one GPU, and the runner that reads it back.

Not run on hardware; what needs none (refusals, keys, names) is tested. The other way, through onnxruntime, needs
no file of its own: the engine compiles an ONNX file on first use (`--backend tensorrt`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import ModelError
from engine.perceive.backends.engine_cache import EngineKey, announced
from engine.perceive.backends.nvidia import describe_gpu
from engine.perceive.backends.runner import ModelFile, Request, Shape, only_precision
from engine.perceive.contract import OUTPUTS
from export.checkpoint import Checkpoint
from export.runners import TorchRunner, require_cuda

_WHEEL = "pip install 'unseen-engine[tensorrt]'"


class TorchTensorRtRunner:
    """A compiled program; refuses one that was compiled for another GPU, driver or library."""

    name = "torch-tensorrt"
    device = "cuda"

    def __init__(self, request: Request) -> None:
        only_precision(request, self.name, ("f32",))
        require_cuda("backend torch-tensorrt")
        _import_torch_tensorrt()
        path = request.model.path
        sidecar = _sidecar(path)
        try:
            recorded = json.loads(sidecar.read_text(encoding="utf-8"))
            made_for, self.metadata = EngineKey(**recorded["key"]), dict(recorded["metadata"])
            self.inputs: dict[str, Shape] = {name: tuple(shape) for name, shape in recorded["inputs"].items()}
            self.outputs: dict[str, Shape] = {name: tuple(shape) for name, shape in recorded["outputs"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"model {path}: {sidecar.name} beside it is not readable ({error})") from None
        here = EngineKey.of(made_for.model, made_for.precision, self.inputs, describe_gpu())
        if changed := made_for.differences(here):
            raise ModelError(f"model {path} was compiled for {'; '.join(changed)}: export it again on this machine")
        self._program = torch.export.load(str(path)).module()

    @torch.inference_mode()
    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `engine.perceive.backends.runner.Runner.run`."""
        values = self._program(*(torch.from_numpy(feed[name]).cuda() for name in self.inputs))
        found = dict(zip(OUTPUTS, (value.float().cpu().numpy() for value in values), strict=True))
        return found if outputs is None else {name: found[name] for name in outputs}


def compile_tensorrt(source: Path, checkpoint: Checkpoint, out: Path, precision: str) -> None:
    """Compile a checkpoint for this machine's GPU and write it with what it was compiled for beside it.

    Args:
        source: file of the checkpoint, for its hash.
        out: FILE.pt2; FILE.pt2.json holds the key and the contract.
        precision: "f32" or "f16".

    Raises:
        ModelError: no GPU, or torch-tensorrt or TensorRT are not installed.
    """
    require_cuda("--to tensorrt")
    compiler = _import_torch_tensorrt()
    runner = TorchRunner(checkpoint)
    key = EngineKey.of(ModelFile.read(source).hash, precision, runner.inputs, describe_gpu())
    network = checkpoint.network.cuda()
    inputs = [torch.zeros(*map(int, shape), device="cuda") for shape in runner.inputs.values()]
    precisions = {torch.float32, torch.float16} if precision == "f16" else {torch.float32}
    with announced(f"TensorRT program of {source.name} for {key.gpu}"):
        compiled = compiler.compile(network, ir="dynamo", inputs=inputs, enabled_precisions=precisions)
        compiler.save(compiled, str(out), output_format="exported_program", inputs=inputs)
    network.cpu()
    shapes = {"inputs": runner.inputs, "outputs": runner.outputs}
    recorded = {"key": asdict(key), "metadata": runner.metadata, **shapes}
    _sidecar(out).write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _import_torch_tensorrt() -> Any:
    try:
        import torch_tensorrt
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"torch-tensorrt cannot be used ({reason}): {_WHEEL}, or use --to onnx") from None
    return torch_tensorrt
