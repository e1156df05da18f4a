"""OpenVINO: ONNX files and its own .xml models on the processor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.perceive.backends.runner import Request, Shape, only_precision


class OpenVinoRunner:
    """A compiled OpenVINO model with one request.

    Its own default computes layers that are not quantised in bf16 where the processor can; that moves mask
    borders (masks are differences of large numbers), so f32 is asked for unless `precision` says otherwise.

    Raises:
        ModelError: openvino is not installed, or the file cannot be read or compiled.
    """

    name = "openvino"

    def __init__(self, request: Request) -> None:
        only_precision(request, "openvino", ("f32", "bf16"))
        self.device = request.device
        if request.device != "cpu":
            raise ModelError("backend openvino runs on the processor here: use --device cpu or --backend onnxruntime")
        openvino = _import_openvino()
        path = request.model.path
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(request.threads),
            # Capture, flow and selection share the cores: pinned workers would wait for them.
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_PRECISION_HINT": request.precision,
        }
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # openvino raises plain RuntimeError with many lines
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"model {path}: not a usable ONNX file or OpenVINO model ({reason})") from None
        self.inputs = {port.get_any_name(): _shape(port) for port in compiled.inputs}
        self.outputs = {port.get_any_name(): _shape(port) for port in compiled.outputs}
        self.metadata = _metadata(model)
        self._request = compiled.create_infer_request()

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        names = list(self.outputs) if outputs is None else list(outputs)
        self._request.infer(dict(feed), share_inputs=True, share_outputs=True)
        # The request's own buffers are overwritten by the next frame.
        return {name: np.array(self._request.get_tensor(name).data) for name in names}


def installed() -> bool:
    """Whether openvino can be imported."""
    try:
        _import_openvino()
    except ModelError:
        return False
    return True


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"backend openvino: not installed ({error}); pip install 'unseen-engine[openvino]' or use "
            "--backend onnxruntime"
        ) from None
    return openvino


def _shape(port: Any) -> Shape:
    return tuple(
        axis.get_length() if axis.is_static else f"free{number}" for number, axis in enumerate(port.get_partial_shape())
    )


def _metadata(model: Any) -> dict[str, str]:
    """Metadata of an ONNX file or of a model written by the exporter, as text."""
    for section in ("framework", "unseen"):
        if model.has_rt_info([section]):
            found = model.get_rt_info([section]).value
            if isinstance(found, dict):
                return {str(key): str(getattr(value, "value", value)) for key, value in found.items()}
    return {}
