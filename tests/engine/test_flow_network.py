"""Flow networks in place of OpenCV's: direction, units, sizes, and files that are none."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import helper

from engine.errors import ModelError
from engine.perceive.flow_network import FlowNetwork
from engine.perceive.motion import FEATURE_SIZE, FLOW_SIZE, MotionEstimator, fit_camera_motion
from engine.run import main
from tests.models import save

H, W = 96, 160


def redness(path: Path, shape: tuple[int, int] = (H, W), metadata: dict[str, str] | None = None) -> Path:
    """Flow x = (first - second) of the mean red, y = the same of the mean green / 2, everywhere, on H x W."""
    h, w = shape
    nodes = [
        helper.make_node("Sub", ["first", "second"], ["difference"]),
        helper.make_node("ReduceMean", ["difference"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("Slice", ["mean", "zero", "two", "one"], ["pair"]),
        helper.make_node("Mul", ["pair", "share"], ["small"]),
        helper.make_node("Expand", ["small", "shape"], ["flow"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "share": np.array([1.0, 0.5], np.float32).reshape(1, 2, 1, 1),
        "shape": np.array([1, 2, h, w], np.int64),
    }
    stated = {"normalisation": '{"mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1}'} | (metadata or {})
    pictures = {"first": [1, 3, H, W], "second": [1, 3, H, W]}
    return save(path, nodes, pictures, {"flow": [1, 2, h, w]}, constants, stated)


def flat(red: int, green: int, size: tuple[int, int] = (256, 448)) -> np.ndarray:
    return np.full((*size, 3), (0, green, red), np.uint8)


@pytest.mark.parametrize("shape", [(H, W), (12, 20), (300, 500)])
def test_flow_goes_from_the_current_picture_to_the_previous_one_in_pixels_of_its_output(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    network = FlowNetwork(redness(tmp_path / "flow.onnx", shape))
    assert network.size == (H, W)
    current, previous = network.prepare(flat(20, 60)), network.prepare(flat(8, 80))
    flow = network.estimate(current, previous, (50, 90))
    assert flow.shape == (50, 90, 2)
    assert flow[..., 0] == pytest.approx(12 * 90 / shape[1], rel=1e-5)
    assert flow[..., 1] == pytest.approx(-10 * 50 / shape[0], rel=1e-5)


def test_motion_is_computed_from_it_as_from_opencvs(tmp_path: Path) -> None:
    estimator = MotionEstimator(FlowNetwork(redness(tmp_path / "flow.onnx")))
    assert estimator.step(flat(8, 80)) is None
    motion = estimator.step(flat(20, 60))
    expected = np.array([12 * FLOW_SIZE[1] / W, -10 * FLOW_SIZE[0] / H])
    assert motion.flow == pytest.approx(np.broadcast_to(expected, (*FEATURE_SIZE, 2)), rel=1e-5)
    # All of it is the camera's, so nothing is left over.
    assert fit_camera_motion(motion.flow)[0] == pytest.approx(expected, rel=1e-4)
    assert np.abs(motion.residual).max() < 1e-3
    assert motion.features[2] == pytest.approx(expected[0] / np.sqrt(1 + abs(expected[0])), rel=1e-4)
    estimator.reset()
    assert estimator.step(flat(20, 60)) is None


def test_it_sees_the_frame_itself_in_colour_and_at_its_own_size(tmp_path: Path) -> None:
    path = redness(
        tmp_path / "flow.onnx", metadata={"normalisation": '{"mean": [1,1,1], "std": [2,1,1], "scale": 0.1}'}
    )
    network = FlowNetwork(path)
    frame = cv2.resize(np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8), (640, 480))
    prepared = network.prepare(frame)
    small = cv2.resize(frame, (W, H), interpolation=cv2.INTER_AREA).astype(np.float32)
    assert prepared.shape == (1, 3, H, W)
    assert prepared[0, 0] == pytest.approx((small[..., 2] * 0.1 - 1) / 2, abs=1e-5)
    assert prepared[0, 2] == pytest.approx(small[..., 0] * 0.1 - 1, abs=1e-5)


def test_of_several_flows_the_last_of_the_largest_counts(tmp_path: Path) -> None:
    values = {"coarse": (12, 20, 1.0), "first": (H, W, 2.0), "last": (H, W, 3.0)}
    constants = {f"{n}_value": np.full((1, 2, h, w), v, np.float32) for n, (h, w, v) in values.items()}
    nodes = [helper.make_node("Identity", [f"{n}_value"], [n]) for n in values]
    outputs = {n: [1, 2, h, w] for n, (h, w, _) in values.items()}
    path = save(tmp_path / "raft.onnx", nodes, {"a": [1, 3, H, W], "b": [1, 3, H, W]}, outputs, constants)
    network = FlowNetwork(path)
    picture = network.prepare(flat(0, 0))
    assert network.estimate(picture, picture, (H, W)) == pytest.approx(3.0)


def test_values_that_are_not_finite_are_a_model_error(tmp_path: Path) -> None:
    constants = {"value": np.full((1, 2, H, W), np.nan, np.float32)}
    node = helper.make_node("Identity", ["value"], ["flow"])
    pictures = {"a": [1, 3, H, W], "b": [1, 3, H, W]}
    network = FlowNetwork(save(tmp_path / "nan.onnx", [node], pictures, {"flow": [1, 2, H, W]}, constants))
    with pytest.raises(ModelError, match="finite"):
        network.estimate(network.prepare(flat(0, 0)), network.prepare(flat(0, 0)), (H, W))


def fails(capsys: pytest.CaptureFixture[str], path: Path, says: str) -> None:
    assert main(["--source", "demo", "--no-publish", "--max-frames", "1", "--flow", str(path)]) == 4
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert says in lines[-1]


def test_wrong_files_are_exit_4_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], default_model: Path
) -> None:
    fails(capsys, tmp_path / "none.onnx", "no such file")
    fails(capsys, default_model, "two inputs [1, 3, h, w]")
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x08\x01" * 300)
    fails(capsys, corrupt, "not a usable ONNX file")
    node = helper.make_node("Sub", ["a", "b"], ["difference"])
    pictures = {"a": [1, 3, H, W], "b": [1, 3, H, W]}
    three = save(tmp_path / "three.onnx", [node], pictures, {"difference": [1, 3, H, W]}, {})
    fails(capsys, three, "[1, 2, H, W]")


def test_the_engine_runs_with_it_and_says_what_that_means(tmp_path: Path, capsys, caplog) -> None:
    path = redness(tmp_path / "flow.onnx")
    demo = "demo://?frames=4&seed=5&size=240x428"
    assert main(["--source", demo, "--no-publish", "--flow", str(path)]) == 0
    assert "4 frames" in capsys.readouterr().err
    assert "learned with OpenCV's" in caplog.text
