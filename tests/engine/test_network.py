"""The model runner: the contract is checked, missing cues are switched off, bad files are one line."""

import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import helper

from engine.errors import ModelError
from engine.perceive.network import Network, resolve_model
from tests.models import GRID, SIZE, motion_model, save


def test_missing_outputs_switch_their_cue_off_with_a_line(motion_model: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        network = Network(motion_model)
    assert sorted(word for word in ("masks", "scores", "embedding") if f"'{word}'" in caplog.text) == [
        "embedding",
        "masks",
        "scores",
    ]
    output = network.run(np.zeros((*SIZE, 3), np.uint8), None)
    assert output.masks is None
    assert output.embedding is None
    assert output.background.shape == GRID


def test_output_is_the_arithmetic_of_the_file(motion_model: Path) -> None:
    features = np.zeros((5, *SIZE), np.float32)
    features[0, :, :224] = 2.0
    background = Network(motion_model).run(np.zeros((*SIZE, 3), np.uint8), features).background
    assert background[:, :50] == pytest.approx(1 / (1 + np.exp(-8 * (0.5 - 1.0))), abs=1e-4)
    assert background[:, 60:] == pytest.approx(1 / (1 + np.exp(-8 * 0.5)), abs=1e-4)


def test_image_is_normalised_as_the_metadata_says(tmp_path: Path) -> None:
    path = save(
        tmp_path / "red.onnx",
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Slice", ["pooled", "zero", "one", "one"], ["background"]),
        ],
        {"image": [1, 3, *SIZE]},
        {"background": [1, 1, *GRID]},
        {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)},
    )
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 2] = 255  # red, the first channel of RGB
    assert Network(path).run(image, None).background == pytest.approx((1.0 - 0.5) / 0.25)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x01" * 400])
def test_corrupt_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a usable ONNX file") as error:
        Network(path)
    assert "\n" not in str(error.value)


def test_half_a_model_is_refused(tmp_path: Path, default_model: Path) -> None:
    path = tmp_path / "half.onnx"
    content = default_model.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError):
        Network(path)


def test_the_fast_model_is_the_default_one_at_a_smaller_size(default_model: Path) -> None:
    default, fast = (Network(resolve_model(name)) for name in ("default", "fast"))
    assert resolve_model("default") == default_model
    assert (default.size, fast.size) == ((256, 448), (192, 352))
    assert fast.motion_size == (96, 176)
    picture = np.random.default_rng(2).integers(0, 256, (480, 852, 3), np.uint8)
    features = np.zeros((5, *fast.motion_size), np.float32)
    output = fast.run(fast.fit(picture), features)
    assert output.masks.shape == (32, *fast.grid) == (32, 48, 88)
    assert output.embedding.shape == (16, 48, 88)


def test_missing_files_name_what_is_shipped() -> None:
    with pytest.raises(ModelError, match="shipped: default"):
        resolve_model("no-such-model")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"contract": "2"}, "contract version 2"),
        ({"motion": "raft"}, "raft"),
        ({"normalisation": "{"}, "normalisation"),
    ],
)
def test_mismatching_models_are_refused(tmp_path: Path, metadata: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Network(motion_model(tmp_path / "model.onnx", metadata))


def test_a_classifier_is_not_a_model_of_the_contract(tmp_path: Path) -> None:
    path = save(
        tmp_path / "classifier.onnx",
        [helper.make_node("GlobalAveragePool", ["image"], ["classes"])],
        {"image": [1, 3, *SIZE]},
        {"classes": [1, 3, 1, 1]},
        {},
    )
    with pytest.raises(ModelError, match="neither 'masks' nor 'background'"):
        Network(path)


def test_scores_without_masks_are_ignored_and_counts_must_agree(tmp_path: Path) -> None:
    def model(name: str, masks: int | None) -> Path:
        outputs = {"background": [1, 1, *GRID], "scores": [1, 40]} | ({"masks": [1, masks, *GRID]} if masks else {})
        constants = {f"{key}_value": np.zeros(shape, np.float32) for key, shape in outputs.items()}
        nodes = [helper.make_node("Identity", [f"{key}_value"], [key]) for key in outputs]
        return save(tmp_path / name, nodes, {"image": [1, 3, *SIZE]}, outputs, constants)

    assert Network(model("scores.onnx", None)).run(np.zeros((*SIZE, 3), np.uint8), None).scores is None
    with pytest.raises(ModelError, match="4 masks but 40 scores"):
        Network(model("mismatch.onnx", 4))


def test_outputs_that_are_not_finite_are_a_model_error(tmp_path: Path) -> None:
    value = np.full((1, 1, *GRID), np.nan, np.float32)
    nodes = [helper.make_node("Identity", ["value"], ["background"])]
    path = save(tmp_path / "nan.onnx", nodes, {"image": [1, 3, *SIZE]}, {"background": [1, 1, *GRID]}, {"value": value})
    with pytest.raises(ModelError, match="not finite"):
        Network(path).run(np.zeros((*SIZE, 3), np.uint8), None)


def test_a_device_that_is_not_there_is_an_error_not_a_fallback(motion_model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a CUDA provider")
    with pytest.raises(ModelError, match="onnxruntime-gpu"):
        Network(motion_model, device="cuda")
