"""Compiled engines: found again, refused when made for something else, rebuilt only when asked, and announced."""

import dataclasses
import json
import logging
import os
import stat
import threading
from pathlib import Path

import onnxruntime
import pytest

from engine.errors import ModelError
from engine.perceive.backends import nvidia, onnx_runtime
from engine.perceive.backends.engine_cache import EngineCache, EngineKey, announced
from engine.perceive.backends.nvidia import Gpu, describe_gpu
from engine.perceive.network import Network

_GPU = Gpu("NVIDIA Orin", "540.3.0", "12.6", "10.3.0")
_KEY = EngineKey.of("0123456789ab", "f16", {"motion": (1, 5, 128, 224), "image": (1, 3, 256, 448)}, _GPU)


def _build(cache: EngineCache, key: EngineKey, *, rebuild: bool = False) -> Path:
    slot = cache.slot(key, rebuild=rebuild)
    assert not slot.ready
    engine = slot.folder / "model.engine"
    engine.write_bytes(b"engine")
    slot.complete(key)
    return engine


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    engine = _build(EngineCache(tmp_path), _KEY)
    slot = EngineCache(tmp_path).slot(_KEY)
    assert slot.ready
    assert slot.folder == engine.parent
    assert engine.read_bytes() == b"engine"


@pytest.mark.parametrize("field", ["gpu", "driver", "cuda", "tensorrt"])
def test_an_engine_of_another_machine_is_refused_until_a_rebuild_is_asked_for(field: str, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    engine = _build(cache, _KEY)
    here = dataclasses.replace(_KEY, **{field: "other"})
    with pytest.raises(ModelError) as error:
        cache.slot(here)
    message = str(error.value)
    assert f"{field} {getattr(_KEY, field)}, now other" in message
    assert "--rebuild-engines" in message
    assert "\n" not in message
    assert engine.exists()
    _build(cache, here, rebuild=True)
    assert cache.slot(here).ready


@pytest.mark.parametrize("field", ["model", "precision", "shapes"])
def test_another_model_precision_or_shape_has_a_slot_of_its_own(field: str, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    _build(cache, _KEY)
    other = dataclasses.replace(_KEY, **{field: "other"})
    assert not cache.slot(other).ready
    assert cache.slot(_KEY).ready


def test_what_an_interrupted_build_left_is_removed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    half = cache.slot(_KEY).folder / "half.engine"
    half.write_bytes(b"ha")
    assert not cache.slot(_KEY).ready
    assert not half.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"model": "x"})])
def test_an_unreadable_key_counts_as_no_engine(content: str, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    engine = _build(cache, _KEY)
    (engine.parent / "key.json").write_text(content, encoding="utf-8")
    assert not cache.slot(_KEY).ready


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match="UNSEEN_CACHE"):
        EngineCache(tmp_path / "file" / "cache").slot(_KEY)


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    assert EngineCache().folder == tmp_path / "engines"
    monkeypatch.delenv("UNSEEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert EngineCache().folder == tmp_path / "xdg" / "unseen" / "engines"


def test_building_is_announced_reported_and_ended(caplog: pytest.LogCaptureFixture) -> None:
    reported = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "so far" in record.getMessage():
                reported.set()

    logger, watch = logging.getLogger("unseen.model"), Watch()
    logger.addHandler(watch)
    try:
        with caplog.at_level(logging.INFO, "unseen.model"), announced("engine of x", every_s=0.01):
            assert reported.wait(20)
    finally:
        logger.removeHandler(watch)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("building engine of x")
    assert lines[-1].startswith("built engine of x in ")
    assert "engine-build-progress" not in [thread.name for thread in threading.enumerate()]


def _fake_smi(folder: Path, text: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi of our own, first on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(nvidia, "_TEGRA", folder / "no-tegra")


def test_the_gpu_is_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_smi(tmp_path, "NVIDIA H100 80GB HBM3, 550.54.15", 0, monkeypatch)
    monkeypatch.setattr(nvidia, "_tensorrt_version", lambda: "10.3.0")
    gpu = describe_gpu()
    assert (gpu.name, gpu.driver, gpu.tensorrt) == ("NVIDIA H100 80GB HBM3", "550.54.15", "10.3.0")


def test_a_jetson_is_known_by_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("_BOARD", "NVIDIA Jetson Orin NX\x00"), ("_TEGRA", "# R36 (release), REVISION: 4.0\nmore")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(nvidia, name, tmp_path / name)
    monkeypatch.setattr(nvidia, "_tensorrt_version", lambda: "10.3.0")
    gpu = describe_gpu()
    assert (gpu.name, gpu.driver) == ("NVIDIA Jetson Orin NX", "# R36 (release), REVISION: 4.0")


def test_a_driver_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_smi(tmp_path, "NVIDIA-SMI has failed", 9, monkeypatch)
    with pytest.raises(ModelError, match="NVIDIA-SMI has failed"):
        describe_gpu()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="nvidia-smi is not there"):
        describe_gpu()


def test_tensorrt_builds_once_and_refuses_a_stale_engine(
    motion_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way of `--backend tensorrt` except TensorRT: the session is the processor's."""
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    machine = [_GPU]
    settings_seen = []
    session = onnxruntime.InferenceSession

    class Session:
        def __new__(cls, content, options, providers):  # type: ignore[no-untyped-def]
            if providers[0][0] != "TensorrtExecutionProvider":
                return session(content, options, providers=providers)
            settings_seen.append(providers[0][1])
            made = session(content, options, providers=["CPUExecutionProvider"])
            made.get_providers = lambda: ["TensorrtExecutionProvider"]  # type: ignore[method-assign]
            return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(onnx_runtime, "describe_gpu", lambda: machine[0])
    with caplog.at_level(logging.INFO, "unseen.model"):
        Network(motion_model, backend="tensorrt")
        Network(motion_model, backend="tensorrt")
    assert sum("building" in record.message for record in caplog.records) == 1
    folder = settings_seen[0]["trt_engine_cache_path"]
    assert Path(folder).is_relative_to(tmp_path)
    assert settings_seen[0]["trt_fp16_enable"] is False
    machine[0] = dataclasses.replace(_GPU, driver="560.1")
    with pytest.raises(ModelError, match=r"driver 540\.3\.0, now 560\.1"):
        Network(motion_model, backend="tensorrt")
    Network(motion_model, backend="tensorrt", rebuild_engines=True)
    Network(motion_model, backend="tensorrt", precision="f16")
    assert settings_seen[-1]["trt_fp16_enable"] is True
    assert len(settings_seen) == 4


def test_tensorrt_refuses_int8_it_would_silently_leave_to_cuda(
    default_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    with pytest.raises(ModelError, match="--to onnx"):
        Network(default_model, backend="tensorrt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tensorrt
@pytest.mark.skipif(
    "TensorrtExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs TensorRT and a GPU"
)
def test_a_built_engine_is_found_again(
    motion_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO, "unseen.model"):
        for _ in range(2):
            assert Network(motion_model, backend="tensorrt").device == "cuda"
    assert sum("building" in record.message for record in caplog.records) == 1
