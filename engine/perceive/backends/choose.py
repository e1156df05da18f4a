"""Which backend runs a model: what was asked for, or the best one here and why."""

from collections.abc import Callable
from importlib import metadata

from engine.errors import ModelError
from engine.perceive.backends import onnx_runtime, openvino
from engine.perceive.backends.runner import Request, Runner

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "torch", "torch-tensorrt")
DEVICES = ("auto", "cpu", "cuda")
PLUGINS = "unseen.backends"
"""Entry-point group of runners that need libraries the engine must not import: name = module:function of a Request."""

_GPU_ONLY = ("tensorrt", "torch-tensorrt")
_BUILT_IN: dict[str, Callable[[Request], Runner]] = {
    "onnxruntime": onnx_runtime.open_onnx,
    "openvino": openvino.OpenVinoRunner,
    "tensorrt": onnx_runtime.open_tensorrt,
}
_SUFFIXES = {".pt": "torch", ".pt2": "torch-tensorrt", ".xml": "openvino"}
"""Files that only one backend reads; everything else is taken for ONNX."""


def choose(suffix: str, backend: str, device: str) -> tuple[str, str, str]:
    """(backend, device, reason) for a model file with this suffix.

    Only "auto" is decided here. What was asked for is returned as it is, and fails in `open_runner` where it
    is not there: nothing falls back.

    Raises:
        ModelError: a name that is no backend or device, or a file the backend asked for does not read.
    """
    if backend not in BACKENDS:
        raise ModelError(f"backend '{backend}' is unknown: use one of {', '.join(BACKENDS)}")
    if device not in DEVICES:
        raise ModelError(f"device '{device}' is unknown: use one of {', '.join(DEVICES)}")
    only = _SUFFIXES.get(suffix)
    if only is not None and backend not in ("auto", only):
        raise ModelError(f"backend {backend} does not read {suffix} files: use --backend {only} or export to ONNX")
    if backend in ("torch", "torch-tensorrt") and only != backend:
        wanted = next(ending for ending, name in _SUFFIXES.items() if name == backend)
        raise ModelError(f"backend {backend} reads {wanted} files, not {suffix or 'this one'}: use another backend")
    if backend == "auto":
        backend, reason = (only, f"{suffix} files run nowhere else") if only else _best(device)
    else:
        reason = "asked for"
    if backend in _GPU_ONLY and device == "cpu":
        raise ModelError(
            f"backend {backend} needs a GPU: use --device cuda, or --backend onnxruntime for the processor"
        )
    if device == "auto":
        device = _device(backend)
    return backend, device, reason


def open_runner(request: Request, backend: str) -> Runner:
    """Open a model with a chosen backend.

    Raises:
        ModelError: the backend or its device is not there, or the file cannot be run.
    """
    if backend in _BUILT_IN:
        return _BUILT_IN[backend](request)
    found = metadata.entry_points(group=PLUGINS, name=backend)
    if not found:
        raise ModelError(
            f"backend {backend}: not installed; pip install 'unseen-engine[learn]' offers it, or use "
            "--backend onnxruntime with an exported model"
        )
    try:
        opener: Callable[[Request], Runner] = next(iter(found)).load()
    except ImportError as error:
        raise ModelError(
            f"backend {backend}: {error}; pip install 'unseen-engine[learn]', or use --backend onnxruntime "
            "with an exported model"
        ) from None
    return opener(request)


def _best(device: str) -> tuple[str, str]:
    """Backend for an ONNX file, and why."""
    if device != "cpu" and onnx_runtime.cuda_offered():
        return "onnxruntime", "it offers CUDA"
    if device == "cuda":
        return "onnxruntime", "the one that runs ONNX files on a GPU without compiling them first"
    # Measured on AVX512-VNNI: with layers in f32 both take the same time, and openvino's faster bf16 moves masks.
    return "onnxruntime", "as fast as openvino at the same masks"


def _device(backend: str) -> str:
    if backend in _GPU_ONLY:
        return "cuda"
    return "cuda" if backend == "onnxruntime" and onnx_runtime.cuda_offered() else "cpu"
