"""Which range of every activation INT8 covers, from its histogram over calibration frames."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from engine.errors import UsageError
from export.frames import NetworkInput

METHODS = ("minmax", "percentile", "mse")
_BINS = 4096
_LEVELS = 255
_PERCENTILE = 99.999
_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Histogram:
    """How often an activation has which value: `counts` int64 [bins] over equal bins from `low` to `high`."""

    low: float
    high: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """Middle of every bin, float64 [bins]."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[:-1] + edges[1:]) / 2

    def range(self, method: str) -> tuple[float, float]:
        """(low, high) that INT8 should cover.

        Args:
            method: "minmax": everything seen; "percentile": all but the outermost 10⁻⁵ on either side; "mse": the
                range whose rounding and clipping errors have the least sum of squares.

        Raises:
            UsageError: unknown method.
        """
        if method not in METHODS:
            raise UsageError(f"calibration method '{method}' is unknown: use one of {', '.join(METHODS)}")
        total = self.counts.sum()
        if method == "minmax" or not total or self.low == self.high:
            return self.low, self.high
        if method == "percentile":
            below = np.cumsum(self.counts) / total
            tail = 1 - _PERCENTILE / 100
            first, last = int(np.searchsorted(below, tail, side="right")), int(np.searchsorted(below, 1 - tail))
            return float(self.centres[first]), float(self.centres[min(last, len(self.counts) - 1)])
        used = self.counts > 0
        values, weights = self.centres[used], self.counts[used].astype(np.float64)
        scales = np.linspace(0.2, 1.0, 81)
        errors = [_squared_error(values, weights, self.low * s, self.high * s) for s in scales]
        best = scales[int(np.argmin(errors))]
        return self.low * best, self.high * best


def _squared_error(values: np.ndarray, weights: np.ndarray, low: float, high: float) -> float:
    """Sum of squares of what rounding `values` to 256 levels of [low, high] changes; zero is a level."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / _LEVELS
    rounded = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return float((weights * (values - rounded) ** 2).sum())


def histograms(
    model: onnx.ModelProto, tensors: Sequence[str], frames: Iterable[NetworkInput], bins: int = _BINS
) -> dict[str, Histogram]:
    """Histograms of the named inputs and activations of an fp32 model; reads the frames twice.

    Keeps one histogram per tensor, not the activations themselves: memory does not grow with the frames.
    """
    frames = list(frames)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    inputs = {i.name for i in probe.graph.input}
    inner = [name for name in tensors if name not in inputs]
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, _FLOAT, None) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def values(frame: NetworkInput) -> dict[str, np.ndarray]:
        feeds = frame.feeds()
        found = dict(zip(inner, session.run(inner, feeds), strict=True))
        return found | {name: feeds[name] for name in tensors if name in inputs}

    bounds: dict[str, tuple[float, float]] = {}
    for frame in frames:
        for name, value in values(frame).items():
            low, high = bounds.get(name, (np.inf, -np.inf))
            bounds[name] = (min(low, float(value.min())), max(high, float(value.max())))
    counts = {name: np.zeros(bins, np.int64) for name in bounds}
    for frame in frames:
        for name, value in values(frame).items():
            low, high = bounds[name]
            if high > low:
                cells = ((value.ravel() - np.float32(low)) * np.float32(bins / (high - low))).astype(np.int32)
                counts[name] += np.bincount(np.minimum(cells, bins - 1), minlength=bins)
    return {name: Histogram(*bounds[name], counts[name]) for name in bounds}


def tensor_ranges(found: dict[str, Histogram], method: str) -> TensorsData:
    """Ranges in the form the quantiser reads."""
    data = {}
    for name, histogram in found.items():
        low, high = histogram.range(method)
        data[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    return TensorsData(CalibrationMethod.MinMax, data)
