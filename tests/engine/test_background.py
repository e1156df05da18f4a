"""Another background cue replaces the model's map and nothing else; what cannot supply one is a single line."""

from pathlib import Path

import numpy as np
import pytest

from engine import run
from engine.config import EngineConfig
from engine.errors import ModelError, UsageError
from engine.frame import Frame
from engine.perceive.background import BackgroundNetwork, UniformBackground, open_background
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver
from engine.pipeline import Pipeline

pytest.importorskip("onnx")

from onnx import helper

from tests.models import save

SIZE, GRID = (32, 64), (8, 16)


def _frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (96, 160, 3), np.uint8)
    frames = []
    for index in range(count):
        image = ground.copy()
        image[30:60, 20 + 4 * index : 60 + 4 * index] = (40, 40, 220)
        frames.append(Frame(image, index, index * 10**7, "test"))
    return frames


@pytest.fixture(scope="module")
def red_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Background = one minus the red channel, averaged over 4 x 4 pixels; no motion, no other output."""
    nodes = [
        helper.make_node("Slice", ["image", "begin", "end", "axis"], ["red"]),
        helper.make_node("AveragePool", ["red"], ["mean"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["one", "mean"], ["background"]),
    ]
    constants = {
        "begin": np.array([0]),
        "end": np.array([1]),
        "axis": np.array([1]),
        "one": np.array(1, np.float32),
    }
    metadata = {"normalisation": '{"mean": [0, 0, 0], "std": [1, 1, 1], "scale": 0.00392156862745098}'}
    path = tmp_path_factory.mktemp("background") / "red.onnx"
    return save(path, nodes, {"image": [1, 3, *SIZE]}, {"background": [1, 1, *GRID]}, constants, metadata)


def test_the_map_is_that_of_the_other_network_on_the_models_grid(red_model: Path, motion_model: Path) -> None:
    cue = BackgroundNetwork(red_model)
    frames = _frames(2)
    network = Network(motion_model)
    plain, replaced = Perceiver(network, EngineConfig().perceive), None
    replaced = Perceiver(network, EngineConfig().perceive, background=cue)
    for frame in frames:
        ours, theirs = replaced.step(frame), plain.step(frame)
        np.testing.assert_array_equal(ours.background, cue.map(frame.image, None, network.grid))
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        assert ours.background.shape == network.grid
    inside, outside = ours.background[22:36, 20:36], ours.background[:, 80:]
    assert inside.mean() < 0.3 < outside.mean()


def test_red_pixels_are_read_as_red(red_model: Path) -> None:
    cue = BackgroundNetwork(red_model)
    blue, red = np.zeros((2, 64, 128, 3), np.uint8)
    blue[..., 0], red[..., 2] = 255, 255
    np.testing.assert_allclose(cue.map(blue, None, GRID), 1.0, atol=1e-6)
    np.testing.assert_allclose(cue.map(red, None, (5, 7)), 0.0, atol=1e-6)


def test_a_network_with_motion_is_given_the_motion_of_the_frame(motion_model: Path) -> None:
    network = Network(motion_model)
    cue = BackgroundNetwork(motion_model)
    own, other = (Pipeline(EngineConfig(), network, background=background) for background in (None, cue))
    for frame in _frames(4):
        np.testing.assert_allclose(own.perceive(frame).background, other.perceive(frame).background, atol=1e-6)


def test_uniform_says_one_half_and_adds_no_candidate(default_model: Path) -> None:
    pipeline = Pipeline(EngineConfig(), Network(default_model), background=UniformBackground())
    network_only = Perceiver(Network(default_model), EngineConfig().perceive)
    for frame in _frames(2):
        percepts = pipeline.perceive(frame)
        assert (percepts.background == 0.5).all()
        assert len(percepts.masks) <= len(network_only.step(frame).masks)


def test_names_files_and_what_is_wrong_with_them(red_model: Path, tmp_path: Path) -> None:
    assert open_background("network") is None
    assert open_background("seeds") is None
    assert isinstance(open_background("uniform"), UniformBackground)
    assert isinstance(open_background(str(red_model)), BackgroundNetwork)
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    rng_masks = helper.make_node("AveragePool", ["image"], ["masks"], kernel_shape=[4, 4], strides=[4, 4])
    masks = save(tmp_path / "masks.onnx", [rng_masks], {"image": [1, 3, *SIZE]}, {"masks": [1, 3, *GRID]}, {})
    for name, error in (
        (str(tmp_path / "none.onnx"), ModelError),
        (str(tmp_path / "broken.onnx"), ModelError),
        (str(masks), ModelError),
        ("telepathy", UsageError),
    ):
        with pytest.raises(error) as caught:
            open_background(name)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_exit_code_4_and_an_unknown_name_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--source", "demo", "--max-frames", "1", "--no-publish", "--background"]
    for name, code in (("nowhere.onnx", 4), ("amd", 4), (str(tmp_path), 4), ("telepathy", 2)):
        assert run.main([*arguments, name]) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith(f"error: --background {name}")


def test_seeds_put_their_own_map_in_place() -> None:
    config = run.build_config(run.parse_arguments(["--source", "demo", "--background", "seeds"]))
    assert (config.seeds.correction, config.seeds.correct_known_only) == (1.0, False)
    plain = run.build_config(run.parse_arguments(["--source", "demo"]))
    assert plain == EngineConfig()
