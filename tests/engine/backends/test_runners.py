"""Every backend gives the numbers of the model, keeps its hands off arrays it gave away, and sleeps when idle."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")

from onnx import helper

from engine.errors import ModelError
from engine.perceive.backends.onnx_runtime import BoundSession
from engine.perceive.backends.runner import ModelFile, Request
from engine.perceive.network import Network
from streaming.sources import open_source
from tests.models import GRID, SIZE, save

_SCENE = [frame.image for frame in itertools.islice(open_source("demo://?frames=30"), 0, 30, 10)]
HERE = ["onnxruntime"] + (["openvino"] if importlib.util.find_spec("openvino") else [])


def _image(seed: int) -> np.ndarray:
    """A frame of the built-in scene at the network's size."""
    return cv2.resize(_SCENE[seed], SIZE[::-1], interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module", params=HERE)
def network(request: pytest.FixtureRequest, default_model: Path) -> Network:
    return Network(default_model, backend=request.param)


def test_backends_agree_on_the_shipped_model(network: Network, default_model: Path) -> None:
    """A value of a quantised layer may round to either of two steps of 256, and these add up over layers."""
    reference = Network(default_model, backend="onnxruntime")
    overlaps = []
    for seed in range(len(_SCENE)):
        a, b = (n.run(_image(seed), None) for n in (reference, network))
        assert np.abs(a.background - b.background).mean() < 0.015
        assert np.linalg.norm(a.embedding - b.embedding) < 0.1 * np.linalg.norm(a.embedding)
        best = np.argsort(-a.scores)[:5]
        pairs = [[(x & y).sum() / max((x | y).sum(), 1) for y in b.masks > 0] for x in a.masks[best] > 0]
        overlaps += np.max(pairs, axis=1).tolist()
    assert np.mean(overlaps) > 0.95


def test_backends_agree_to_rounding_on_float_models(tmp_path: Path) -> None:
    path = _convolution(tmp_path / "float.onnx", 1)
    outputs = [Network(path, backend=name).run(_image(1), None).background for name in HERE]
    for output in outputs:
        assert output == pytest.approx(outputs[0], abs=1e-4)
        assert output.std() > 0.1


def test_arrays_belong_to_the_caller(network: Network) -> None:
    first = network.run(_image(1), None)
    kept = first.background.copy(), first.masks.copy()
    network.run(_image(2), None)
    assert np.array_equal(first.background, kept[0])
    assert np.array_equal(first.masks, kept[1])


def test_metadata_reaches_the_contract(network: Network, default_model: Path) -> None:
    reference = Network(default_model, backend="onnxruntime")
    assert (network.size, network.grid, network.motion_size) == (
        reference.size,
        reference.grid,
        reference.motion_size,
    )
    assert network.hash == reference.hash
    assert network._contract.gain == pytest.approx(reference._contract.gain)


@pytest.mark.parametrize("backend", HERE)
def test_corrupt_files_are_one_line(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a usable ONNX file") as error:
        Network(path, backend=backend)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("backend", "spin"), [*((name, False) for name in HERE), ("onnxruntime", True)])
def test_no_thread_spins_when_no_frame_comes(backend: str, spin: bool, default_model: Path) -> None:
    """Processor time of a whole process, every thread of it, while it waits right after 20 frames."""
    program = (
        "import sys, time, pathlib, numpy\n"
        "from engine.perceive.network import Network\n"
        f"network = Network(pathlib.Path({str(default_model)!r}), backend={backend!r}, threads=2, spin={spin})\n"
        "image = numpy.zeros((256, 448, 3), numpy.uint8)\n"
        "for _ in range(20): network.run(image, None)\n"
        "time.sleep(0.2)\n"
        "before = time.process_time()\n"
        "time.sleep(1.0)\n"
        "print(time.process_time() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 0.05


def test_spinning_changes_no_mask(default_model: Path) -> None:
    waiting, spinning = (Network(default_model, backend="onnxruntime", spin=spin) for spin in (False, True))
    for seed in range(len(_SCENE)):
        a, b = (network.run(_image(seed), None) for network in (waiting, spinning))
        for name in ("masks", "scores", "background", "embedding"):
            assert np.array_equal(getattr(a, name), getattr(b, name))


def test_bound_memory_gives_what_plain_runs_give(default_model: Path) -> None:
    """The path a GPU takes, with its buffers in ordinary memory."""
    session = onnxruntime.InferenceSession(str(default_model), providers=["CPUExecutionProvider"])
    bound = BoundSession(session, "cpu")
    names = [o.name for o in session.get_outputs()]
    rng = np.random.default_rng(0)
    shapes = {i.name: i.shape for i in session.get_inputs()}
    results = []
    for _ in range(3):
        feed = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        results.append((bound.run(feed, names), dict(zip(names, session.run(names, feed), strict=True))))
    for got, expected in results:
        for name in names:
            assert np.array_equal(got[name], expected[name])


def test_frames_of_several_cameras_go_through_at_once(tmp_path: Path) -> None:
    """A free batch gives what single runs give, for any number of frames; a fixed one is run frame by frame."""
    one, free = (Network(_convolution(tmp_path / f"{b}.onnx", b)) for b in (1, "batch"))
    assert (one.any_batch, free.any_batch) == (False, True)
    for count in (1, 3, 2):
        images = [_image(seed) for seed in range(count)]
        single = [one.run(image, None).background for image in images]
        for network in (one, free):
            batch = network.run_batch(images, [None] * count)
            assert len(batch) == count
            for output, expected in zip(batch, single, strict=True):
                assert output.background == pytest.approx(expected, abs=1e-5)
                assert output.background.shape == GRID


def test_a_runner_of_ones_own_makes_a_network() -> None:
    """What adapts another kind of model only has to be a runner that follows the contract."""

    class Bright:
        def __init__(self) -> None:
            self.name, self.device, self.metadata = "bright", "cpu", {}
            self.inputs, self.outputs = {"image": (1, 3, 8, 8)}, {"background": (1, 1, 8, 8)}

        def run(self, feed, outputs=None):  # type: ignore[no-untyped-def]
            return {"background": (feed["image"].mean(axis=1, keepdims=True) > 0).astype(np.float32)}

    network = Network.of(Bright(), "bright", "0" * 12)
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 255
    assert network.run(image, None).background.mean() == 0.5
    assert (network.name, network.backend) == ("bright", "bright")


def test_precisions_are_checked(default_model: Path) -> None:
    model = ModelFile.read(default_model)
    with pytest.raises(ModelError, match="f32, f16, bf16"):
        Request(model, precision="int4")


def _convolution(path: Path, batch: int | str) -> Path:
    """Background = a logistic of a random convolution of the image at stride 4."""
    weights = np.random.default_rng(7).normal(size=(1, 3, 4, 4), scale=0.3).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["logit"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sigmoid", ["logit"], ["background"]),
    ]
    inputs, outputs = {"image": [batch, 3, *SIZE]}, {"background": [batch, 1, *GRID]}
    return save(path, nodes, inputs, outputs, {"weights": weights})
