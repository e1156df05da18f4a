"""Exports keep the masks, carry the contract, and refuse to leave a file that does not."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from engine.errors import ModelError  # noqa: E402
from engine.perceive.motion import MOTION_DEFINITION  # noqa: E402
from export import __main__ as command  # noqa: E402
from export.checkpoint import load_checkpoint  # noqa: E402
from export.frames import drawn_frames  # noqa: E402
from export.parity import LIMITS, Limits, Parity, check, measure, open_session  # noqa: E402
from export.quantise import output_convolutions  # noqa: E402
from learning.networks.compact import Compact, CompactConfig  # noqa: E402

_SMALL = CompactConfig(stem=4, widths=(8, 8, 12, 12), depths=(1, 1, 1), decoder=(12, 8, 8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights and well-spread scores."""
    torch.manual_seed(3)
    network = Compact(_SMALL)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.3)
        for head in (network.kernels, network.heat, network.foreground, network.votes):
            head.weight.normal_(std=0.4)
        network.heat.bias.fill_(0.0)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    state = network.state_dict()
    torch.save({"config": asdict(_SMALL), "state": state, "training": {"step": 7, "minutes": 1.5, "seed": 3}}, path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    out = checkpoint.parent / "model.onnx"
    parity = command.export(checkpoint, "onnx", out, parity_frames=6)
    assert parity.mask_iou >= LIMITS["onnx"].mask_iou
    assert parity.masks > 0
    return out


def test_metadata_follows_the_contract(exported: Path) -> None:
    metadata = {p.key: p.value for p in onnx.load(exported).metadata_props}
    assert metadata["contract"] == "1"
    assert metadata["motion"] == MOTION_DEFINITION
    assert metadata["stride"] == "4"
    assert metadata["size"] == "256x448"
    assert set(json.loads(metadata["normalisation"])) == {"mean", "std", "scale", "channels"}
    assert "step 7" in metadata["training"]
    assert metadata["revision"]


def test_graph_has_the_static_shapes_of_the_contract(exported: Path) -> None:
    session = open_session(exported)
    assert {i.name: i.shape for i in session.get_inputs()} == {
        "image": [1, 3, 256, 448],
        "motion": [1, 5, 128, 224],
    }
    shapes = {o.name: o.shape for o in session.get_outputs()}
    assert shapes == {
        "masks": [1, 32, 64, 112],
        "scores": [1, 32],
        "background": [1, 1, 64, 112],
        "embedding": [1, 16, 64, 112],
    }


def test_int8_quantises_inner_convolutions_and_leaves_the_heads(
    checkpoint: Path, tmp_path: Path, exported: Path
) -> None:
    out = tmp_path / "int8.onnx"
    # Random weights have no margin between mask and rest, so only the mechanics are tested here.
    limits = LIMITS["int8"]
    LIMITS["int8"] = Limits(1.0, 0.0, -1.0)
    try:
        parity = command.export(checkpoint, "int8", out, calibration_frames=4, parity_frames=4)
    finally:
        LIMITS["int8"] = limits
    assert parity.background_error < 0.1
    assert len(output_convolutions(onnx.load(exported))) == 6
    producers = {o: n for n in onnx.load(out).graph.node for o in n.output}
    convolutions = [n for n in producers.values() if n.op_type == "Conv"]
    plain = [n for n in convolutions if producers.get(n.input[1], n).op_type != "DequantizeLinear"]
    # The six that end in an output, and the one that reads the image.
    assert len(plain) == 7
    assert sum(n.input[0] == "image" for n in plain) == 1
    assert len(convolutions) > 20
    assert {p.key for p in onnx.load(out).metadata_props} >= {"contract", "normalisation", "motion"}


def test_a_failed_parity_is_one_line_exit_code_4_and_no_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = command.write_graph

    def damaged(loaded, path):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            loaded.network.foreground.bias.add_(2.0)
        original(loaded, path)
        with torch.no_grad():
            loaded.network.foreground.bias.sub_(2.0)

    monkeypatch.setattr(command, "write_graph", damaged)
    assert command.main([str(checkpoint), "--to", "onnx", "--out", str(tmp_path / "bad.onnx")]) == 4
    error = capsys.readouterr().err
    assert "background error" in error
    assert "0.002" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_limit_can_refuse() -> None:
    limits = Limits(0.01, 0.9, 0.8)
    check(Parity(0.01, 0.9, 0.8, 1, 1), limits, "int8")
    for parity in (
        Parity(0.02, 1, 1, 1, 1),
        Parity(0, 0.8, 1, 1, 1),
        Parity(0, 1, 0.7, 1, 1),
        Parity(np.nan, 1, 1, 1, 1),
    ):
        with pytest.raises(ModelError):
            check(parity, limits, "int8")


def test_parity_sees_a_network_with_other_masks(checkpoint: Path, exported: Path) -> None:
    network = load_checkpoint(checkpoint).network
    with torch.no_grad():
        network.kernels.weight.mul_(-1)
    assert measure(network, exported, drawn_frames(4, 0)).mask_iou < 0.9


@pytest.mark.parametrize("target", ["tensorrt", "openvino", "papyrus"])
def test_other_targets_are_one_line_and_exit_code_2(
    target: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(checkpoint), "--to", target, "--out", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert target in error
    assert "int8" in error
    assert error.count("\n") == 1


def test_not_a_checkpoint_is_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    for name in ("x.pt", "absent.pt"):
        assert command.main([str(tmp_path / name), "--to", "onnx", "--out", str(tmp_path / "m.onnx")]) == 4
    assert capsys.readouterr().err.count("\n") == 2
