"""Backends: auto says what it chose and why; what is asked for and not there is one line, never a fallback."""

import logging
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine.errors import ModelError
from engine.perceive.backends import onnx_runtime
from engine.perceive.backends.choose import BACKENDS, choose
from engine.perceive.network import Network
from engine.run import build_parser, main

_NO_GPU = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def test_auto_says_in_one_line_what_it_chose_and_why(default_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unseen.model"):
        network = Network(default_model, device="cpu")
    lines = [record.message for record in caplog.records if "backend" in record.message]
    assert len(lines) == 1
    assert f"backend {network.backend} on cpu, " in lines[0]
    assert network.device == "cpu"


def test_auto_prefers_a_gpu_that_onnxruntime_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "cuda_offered", lambda: True)
    assert choose(".onnx", "auto", "auto")[:2] == ("onnxruntime", "cuda")
    assert choose(".onnx", "auto", "cpu")[:2] == ("onnxruntime", "cpu")


@pytest.mark.parametrize(("suffix", "backend"), [(".pt", "torch"), (".xml", "openvino"), (".pt2", "torch-tensorrt")])
def test_files_of_one_backend_choose_it(suffix: str, backend: str) -> None:
    assert choose(suffix, "auto", "auto")[0] == backend
    with pytest.raises(ModelError, match=f"--backend {backend}"):
        choose(suffix, "onnxruntime", "auto")


@pytest.mark.skipif(not _NO_GPU, reason="this onnxruntime has a CUDA provider")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "cuda"], "pip install onnxruntime-gpu"),
        (["--backend", "onnxruntime", "--device", "cuda"], "pip install onnxruntime-gpu"),
        (["--backend", "tensorrt"], "pip install tensorrt"),
        (["--backend", "tensorrt", "--device", "cpu"], "needs a GPU"),
        (["--backend", "openvino", "--device", "cuda"], "--device cpu"),
        (["--backend", "torch"], ".pt files"),
        (["--set", "perceive.precision=f16"], "has no precision f16"),
    ],
)
def test_a_backend_or_device_that_is_not_there_is_exit_code_4(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", "demo", "--no-publish", "--max-frames", "2", *options]) == 4
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert says in error[0]


def test_openvino_that_is_not_installed_names_the_command(default_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'unseen-engine\[openvino\]'"):
        Network(default_model, backend="openvino")


def test_a_provider_that_does_not_start_is_an_error(default_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime lists providers whose libraries cannot be loaded, warns, and goes on without them."""
    if not _NO_GPU:
        pytest.skip("this onnxruntime has a CUDA provider")
    listed = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    session = onnxruntime.InferenceSession

    def fall_back(*args, providers, **kwargs):  # type: ignore[no-untyped-def]
        assert providers[0] == "CUDAExecutionProvider"
        return session(*args, providers=["CPUExecutionProvider"], **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(ModelError, match="could not start it"):
        Network(default_model, device="cuda")


def test_the_command_line_offers_every_backend() -> None:
    (action,) = [action for action in build_parser()._actions if "--backend" in action.option_strings]
    assert tuple(action.choices or ()) == BACKENDS


@pytest.mark.cuda
@pytest.mark.skipif(_NO_GPU, reason="needs onnxruntime-gpu and a GPU")
def test_cuda_gives_the_numbers_of_the_processor(default_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 448, 3), np.uint8)
    cpu, gpu = (Network(default_model, device=device).run(image, None) for device in ("cpu", "cuda"))
    assert gpu.background == pytest.approx(cpu.background, abs=0.02)
