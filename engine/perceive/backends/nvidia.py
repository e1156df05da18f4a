"""What identifies the GPU and the libraries a compiled engine depends on."""

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from engine.errors import ModelError

_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
_BOARD, _TEGRA = Path("/proc/device-tree/model"), Path("/etc/nv_tegra_release")
_LIBRARIES = ("libnvinfer.so", "libnvinfer.so.10", "libnvinfer.so.8", "nvinfer_10.dll")


@dataclass(frozen=True)
class Gpu:
    """The first GPU and its software: name, driver, CUDA and TensorRT versions as text."""

    name: str
    driver: str
    cuda: str
    tensorrt: str


def describe_gpu() -> Gpu:
    """The machine's first GPU.

    Raises:
        ModelError: there is none, its driver does not answer, or TensorRT is not installed.
    """
    name, driver = _board() or _nvidia_smi()
    cuda = getattr(onnxruntime, "cuda_version", "") or "unknown"
    return Gpu(name, driver, cuda, _tensorrt_version())


def _nvidia_smi() -> tuple[str, str]:
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        raise ModelError("no NVIDIA GPU: nvidia-smi is not there; use --device cpu") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"no NVIDIA GPU: nvidia-smi does not answer ({error}); use --device cpu") from None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        reason = " ".join((done.stderr or done.stdout).split())[:120] or f"exit code {done.returncode}"
        raise ModelError(f"no NVIDIA GPU: nvidia-smi says '{reason}'; use --device cpu")
    name, _, driver = lines[0].rpartition(",")
    return name.strip(), driver.strip()


def _board() -> tuple[str, str] | None:
    """A Jetson: its module's name and the release of its system, which brings the driver."""
    try:
        release = _TEGRA.read_text(encoding="utf-8").splitlines()[0]
        return _BOARD.read_text(encoding="utf-8").strip("\x00 \n"), " ".join(release.split())[:60]
    except (OSError, IndexError):
        return None


def _tensorrt_version() -> str:
    for library in _LIBRARIES:
        try:
            version = int(ctypes.CDLL(library).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # 10.3.0 is 100300, 8.6.1 was 8601.
        base = 10_000 if version >= 10_000 else 1_000
        return f"{version // base}.{version % base // 100}.{version % 100}"
    raise ModelError(
        "backend tensorrt: TensorRT's libraries (libnvinfer) are not found; pip install tensorrt, "
        "or use --backend onnxruntime"
    )
