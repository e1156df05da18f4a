"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

# Before numpy loads: small matrix products are slower with two BLAS threads than with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of footage that is not part of the repository; skips where it is absent."""
    folder = Path(os.environ.get("UNSEEN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the footage folder {folder.name}/ (set UNSEEN_DATA)")
    return folder


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The shipped model."""
    return REPOSITORY / "engine" / "models" / "default.onnx"


@pytest.fixture(scope="session")
def motion_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without learning: what does not move with the camera is foreground."""
    models = pytest.importorskip("tests.models", reason="needs onnx")
    return models.motion_model(tmp_path_factory.mktemp("models") / "motion.onnx")
