"""onnxruntime: ONNX files on the processor, through CUDA, or through TensorRT."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from engine.errors import ModelError
from engine.perceive.backends.engine_cache import EngineCache, EngineKey, announced
from engine.perceive.backends.nvidia import describe_gpu
from engine.perceive.backends.runner import Request, Shape, only_precision

_log = logging.getLogger("unseen.model")
_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_GPU_WHEEL = "pip install onnxruntime-gpu (in place of onnxruntime)"


class OnnxRuntimeRunner:
    """An onnxruntime session; on a GPU, inputs and outputs stay bound to device memory between frames.

    Raises:
        ModelError: the provider is not there or did not start, or the file is no ONNX file it can run.
    """

    def __init__(self, request: Request, provider: str) -> None:
        self.name = "tensorrt" if provider == _TENSORRT else "onnxruntime"
        self.device = request.device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # To wake a worker thread for each operator takes a fifth of the time on idle cores; on busy ones a thread that
        # spins keeps the core from what it waits for. Behind a pass none may spin in any case: it would steal the
        # second core from capture and selection, and triple the p99.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if request.spin else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        path = request.model.path
        try:
            if provider == _TENSORRT:
                self._session = _tensorrt_session(request, options)
            else:
                # Nodes that only handle shapes stay on the processor whatever the provider.
                providers = list(dict.fromkeys((provider, _CPU)))
                self._session = onnxruntime.InferenceSession(request.model.content, options, providers=providers)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime has no public base class for its errors
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"model {path}: not a usable ONNX file ({reason})") from None
        # A provider whose libraries do not load is left out with a warning: that is a fallback nobody asked for.
        if provider not in self._session.get_providers():
            raise ModelError(
                f"backend {self.name}: onnxruntime {onnxruntime.__version__} offers {provider} but could not start it: "
                "check the driver and the CUDA, cuDNN and TensorRT libraries, or use --device cpu"
            )
        self.inputs: dict[str, Shape] = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self.outputs: dict[str, Shape] = {o.name: tuple(o.shape) for o in self._session.get_outputs()}
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._bound = BoundSession(self._session, "cuda") if self.device == "cuda" else None

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        names = list(self.outputs) if outputs is None else list(outputs)
        if self._bound is not None:
            return self._bound.run(feed, names)
        return dict(zip(names, self._session.run(names, dict(feed)), strict=True))


class BoundSession:
    """Runs a session through I/O binding: device memory is allocated once per shape, copies are explicit.

    Args:
        session: an open session.
        memory: where inputs and outputs live between copies: "cuda" or "cpu".
    """

    def __init__(self, session: onnxruntime.InferenceSession, memory: str) -> None:
        self._session = session
        self._memory = memory
        self._binding = session.io_binding()
        self._inputs: dict[str, onnxruntime.OrtValue] = {}

    def run(self, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """One forward pass; the arrays returned are copies in processor memory."""
        for name, value in feed.items():
            bound = self._inputs.get(name)
            if bound is None or tuple(bound.shape()) != value.shape:
                bound = onnxruntime.OrtValue.ortvalue_from_numpy(value, self._memory, 0)
                self._inputs[name] = bound
                self._binding.bind_ortvalue_input(name, bound)
            else:
                bound.update_inplace(value)
        self._binding.clear_binding_outputs()
        for name in names:
            self._binding.bind_output(name, self._memory)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        values = self._binding.copy_outputs_to_cpu()
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}


def open_onnx(request: Request) -> OnnxRuntimeRunner:
    """A runner on the processor or through CUDA.

    Raises:
        ModelError: no CUDA provider in this onnxruntime, or a file that cannot be run.
    """
    only_precision(request, "onnxruntime", ("f32",))
    if request.device == "cpu":
        return OnnxRuntimeRunner(request, _CPU)
    _require(_CUDA, "device cuda", f"{_GPU_WHEEL} or use --device cpu")
    return OnnxRuntimeRunner(request, _CUDA)


def open_tensorrt(request: Request) -> OnnxRuntimeRunner:
    """A runner through TensorRT, with its compiled engine from the cache.

    Raises:
        ModelError: no TensorRT provider, no GPU, or an engine in the cache that was made for another machine.
    """
    only_precision(request, "tensorrt", ("f32", "f16"))
    _require(
        _TENSORRT,
        "backend tensorrt",
        f"{_GPU_WHEEL} and NVIDIA's TensorRT libraries (pip install tensorrt), or use --backend onnxruntime",
    )
    return OnnxRuntimeRunner(request, _TENSORRT)


def cuda_offered() -> bool:
    """Whether this onnxruntime was built with CUDA."""
    return _CUDA in onnxruntime.get_available_providers()


def _require(provider: str, what: str, advice: str) -> None:
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ModelError(
            f"{what}: onnxruntime {onnxruntime.__version__} here offers only {', '.join(available)}; {advice}"
        )


def _tensorrt_session(request: Request, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    content = request.model.content
    if b"QuantizeLinear" in content:
        # Left alone, TensorRT would pass every quantised layer on to CUDA: slower, and without a word.
        raise ModelError(
            f"model {request.model.path}: INT8 with unsigned activations, which TensorRT does not take; export it with "
            "--to onnx and run it with --set perceive.precision=f16, or use --device cuda without --backend tensorrt"
        )
    reader = onnxruntime.InferenceSession(content, options, providers=[_CPU])
    shapes = {i.name: tuple(i.shape) for i in reader.get_inputs()}
    key = EngineKey.of(request.model.hash, request.precision, shapes, describe_gpu())
    slot = EngineCache().slot(key, rebuild=request.rebuild_engines)
    settings: dict[str, Any] = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(slot.folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(slot.folder),
        "trt_fp16_enable": request.precision == "f16",
    }
    # CUDA takes what TensorRT has no kernel for; the processor takes nothing.
    providers = [(_TENSORRT, settings), (_CUDA, {})]
    if slot.ready:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    with announced(f"TensorRT engine of {request.model.path.name} for {key.gpu}"):
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    slot.complete(key)
    return session
