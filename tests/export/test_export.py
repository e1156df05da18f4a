"""Exports keep the masks, carry the contract, and refuse to leave a file that does not."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from engine.errors import EngineError, ModelError, UsageError  # noqa: E402
from engine.perceive.backends.runner import ModelFile, Request  # noqa: E402
from engine.perceive.motion import MOTION_DEFINITION  # noqa: E402
from engine.perceive.network import Network  # noqa: E402
from export import __main__ as command  # noqa: E402
from export import convert  # noqa: E402
from export.calibrate import Histogram, histograms, tensor_ranges  # noqa: E402
from export.checkpoint import load_checkpoint  # noqa: E402
from export.convert import Options, export, open_either  # noqa: E402
from export.frames import clip_frames, drawn_frames  # noqa: E402
from export.parity import LIMITS, Limits, Parity, check, measure  # noqa: E402
from export.quantise import (  # noqa: E402
    activations,
    output_convolutions,
    prepare,
    quantisable,
    stem,
    write_quantised,
)
from export.runners import TorchRunner, open_torch  # noqa: E402
from export.sensitivity import Study  # noqa: E402
from export.siblings import merge_siblings  # noqa: E402
from learning.networks.compact import Compact, CompactConfig  # noqa: E402

_ANYTHING = Limits(mask_iou=0.0, background_error=1.0, embedding_error=9.0, rank=-1.0, selection=0.0)
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


def _with_other_background(checkpoint: Path, folder: Path) -> Path:
    """The same network but for its idea of the background."""
    network = load_checkpoint(checkpoint).network
    with torch.no_grad():
        network.foreground.bias.add_(2.0)
    torch.save({"config": asdict(_SMALL), "state": network.state_dict()}, folder / "other.pt")
    return folder / "other.pt"


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    out = checkpoint.parent / "model.onnx"
    parity = export(checkpoint, "onnx", out, Options(parity_frames=6))
    assert parity.mask_iou >= LIMITS["onnx"].mask_iou
    assert parity.masks > 0
    assert parity.frames == 6
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
    runner = open_either(exported)
    assert runner.inputs == {"image": (1, 3, 256, 448), "motion": (1, 5, 128, 224)}
    assert runner.outputs == {
        "masks": (1, 32, 64, 112),
        "scores": (1, 32),
        "background": (1, 1, 64, 112),
        "embedding": (1, 16, 64, 112),
    }


def test_int8_quantises_inner_convolutions_and_leaves_stem_and_heads(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "int8.onnx"
    # Random weights have no margin between mask and rest, so only the mechanics are tested here.
    monkeypatch.setitem(LIMITS, "int8", _ANYTHING)
    monkeypatch.setattr(convert, "write_graph", lambda _, path, **__: path.write_bytes(exported.read_bytes()))
    parity = export(checkpoint, "int8", out, Options(calibration_frames=4, parity_frames=4))
    assert parity.background_error < 0.1
    # The heads on the features at 1/4, and those on the features at 1/8.
    assert len(output_convolutions(onnx.load(exported))) == 2
    producers = {o: n for n in onnx.load(out).graph.node for o in n.output}
    convolutions = [n for n in producers.values() if n.op_type == "Conv"]
    plain = [n for n in convolutions if producers.get(n.input[1], n).op_type != "DequantizeLinear"]
    # The two that end in an output, the two of the image before it meets the motion, and the motion's one.
    assert len(plain) == 5
    assert {n.input[0] for n in plain} >= {"image", "motion"}
    assert len(convolutions) > 20
    assert {p.key for p in onnx.load(out).metadata_props} >= {"contract", "normalisation", "motion"}
    # What is rounded behind a rectifier is not rounded in front of it as well: the range does the rectifying.
    rectifiers = [n for n in producers.values() if n.op_type == "Relu"]
    assert {producers[n.input[0]].op_type for n in rectifiers} <= {"Conv", "Add"}
    assert all(producers[n.input[0]] in plain for n in rectifiers if producers[n.input[0]].op_type == "Conv")


def test_convolutions_of_one_tensor_become_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    shapes = {"a": (3, 2, 3, 3), "b": (5, 2, 3, 3), "wide": (2, 2, 5, 5), "other": (3, 2, 3, 3)}
    constants = {f"{name}_w": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    constants["b_b"] = rng.normal(size=5).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["y"], "relu"),
        onnx.helper.make_node("Conv", ["y", "a_w"], ["a"], "a", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["y", "b_w", "b_b"], ["b"], "b", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["y", "wide_w"], ["wide"], "wide", pads=[2, 2, 2, 2]),
        onnx.helper.make_node("Conv", ["x", "other_w"], ["other"], "other", pads=[1, 1, 1, 1]),
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 8, 9])]
    outputs = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, s[0], 8, 9]) for n, s in shapes.items()
    ]
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "heads", inputs, outputs, initial)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    feed = {"x": rng.normal(size=(1, 2, 8, 9)).astype(np.float32)}
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    assert merge_siblings(model) == 1
    onnx.checker.check_model(model)
    assert [n.op_type for n in model.graph.node].count("Conv") == 3
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_smaller_export_is_the_same_network_at_that_size(
    checkpoint: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.onnx"
    arguments = [str(checkpoint), "--to", "onnx", "--size", "96x160", "--frames", "3", "--out", str(out)]
    assert command.main(arguments) == 0
    network = Network(out)
    assert (network.size, network.motion_size, network.grid) == ((96, 160), (48, 80), (24, 40))
    assert {p.key: p.value for p in onnx.load(out).metadata_props}["size"] == "96x160"
    features = np.random.default_rng(1).normal(size=(5, 48, 80)).astype(np.float32)
    assert network.run(np.full((96, 160, 3), 90, np.uint8), features).masks.shape == (32, 24, 40)
    # A checkpoint has no size of its own; two files must agree.
    assert command.main(["check", str(checkpoint), str(out), "--frames", "3"]) == 0
    assert command.main(["check", str(exported), str(out), "--frames", "3"]) == 2
    assert "must agree" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["100x160", "32x160", "96"])
def test_a_size_the_network_cannot_have_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    arguments = [str(checkpoint), "--to", "onnx", "--size", size, "--out", str(tmp_path / "m.onnx")]
    try:
        code = command.main(arguments)
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert size in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_kept_nodes_stay_in_fp32_and_others_are_refused(exported: Path, tmp_path: Path) -> None:
    model = prepare(exported, tmp_path / "prepared.onnx")
    ranges = tensor_ranges(histograms(model, activations(model), drawn_frames(2, 1)), "minmax")
    inner = [n for n in quantisable(model) if "Conv" in n]
    assert not stem(model) & set(inner)
    write_quantised(model, tmp_path / "kept.onnx", ranges, inner[:1])
    nodes = {n.name: n for n in onnx.load(tmp_path / "kept.onnx").graph.node}
    initialised = {c.name for c in onnx.load(tmp_path / "kept.onnx").graph.initializer}
    assert nodes[inner[0]].input[1] in initialised
    assert nodes[inner[1]].input[1] not in initialised
    with pytest.raises(UsageError, match="no_such_node"):
        write_quantised(model, tmp_path / "no.onnx", ranges, ["no_such_node"])


def test_histograms_hold_every_value_and_their_ranges_cover_what_they_should(exported: Path, tmp_path: Path) -> None:
    model = prepare(exported, tmp_path / "prepared.onnx")
    frames = list(drawn_frames(3, 5))
    found = histograms(model, ["image", *activations(model)], frames, bins=64)
    images = np.concatenate([frame.image.ravel() for frame in frames])
    assert found["image"].counts.sum() == len(images)
    assert (found["image"].low, found["image"].high) == pytest.approx((images.min(), images.max()))
    counts, _ = np.histogram(images, 64, (float(images.min()), float(images.max())))
    assert np.abs(np.cumsum(counts) - np.cumsum(found["image"].counts)).max() <= 0.001 * len(images)


def test_calibration_methods_trade_clipping_for_resolution() -> None:
    """A million values in [0, 1] and one outlier at 100: only minmax pays for the outlier with all the others."""
    counts = np.zeros(10_000, np.int64)
    counts[:100] = 10_000
    counts[-1] = 1
    histogram = Histogram(0.0, 100.0, counts)
    assert histogram.range("minmax") == (0.0, 100.0)
    assert histogram.range("percentile")[1] == pytest.approx(1.0, abs=0.02)
    assert histogram.range("mse")[1] < 100.0
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 1, 20_000), [40.0]])
    spread, _ = np.histogram(values, 8192, (0.0, 40.0))

    def error(high: float) -> float:
        step = high / 255
        return float(((values - np.clip(np.rint(values / step), 0, 255) * step) ** 2).sum())

    best = min(np.linspace(0.2, 1.0, 81) * 40.0, key=error)
    chosen = Histogram(0.0, 40.0, spread).range("mse")[1]
    assert error(chosen) == pytest.approx(error(best), rel=0.05)
    with pytest.raises(UsageError, match="minmax, percentile, mse"):
        histogram.range("entropy")


def test_half_precision_with_a_free_batch_gives_the_masks_of_single_frames(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.onnx"
    # Random weights again; the exact comparison is below.
    parity = export(checkpoint, "onnx", out, Options(half=True, any_batch=True, parity_frames=3, min_mask_iou=0.5))
    assert parity.background_error < 0.01
    runner = open_either(out)
    frames = [frame.feeds() for frame in drawn_frames(3, 21)]
    together = runner.run({name: np.concatenate([f[name] for f in frames]) for name in frames[0]})
    for index, feeds in enumerate(frames):
        alone = runner.run(feeds)
        for name, value in alone.items():
            assert together[name][index] == pytest.approx(value[0], abs=2e-2 if name != "masks" else 0.5)
    assert Network(out).any_batch


def test_openvino_files_carry_the_contract_and_the_masks(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = convert._write_openvino(exported, tmp_path / "model.xml")
    network, onnx_network = Network(out), Network(exported)
    assert network.backend == "openvino"
    assert network._contract.gain == pytest.approx(onnx_network._contract.gain)
    assert network.hash != onnx_network.hash
    reference = TorchRunner(load_checkpoint(checkpoint))
    check(measure(reference, open_either(out), drawn_frames(3, 2)), LIMITS["onnx"], "openvino")


def test_a_failed_parity_is_one_line_exit_code_4_and_no_file(
    checkpoint: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(convert, "write_graph", lambda _, path, **__: path.write_bytes(exported.read_bytes()))
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["--to", "onnx", "--frames", "4", "--out", str(out / "bad.onnx")]
    assert command.main([str(_with_other_background(checkpoint, tmp_path)), *arguments]) == 4
    error = capsys.readouterr().err
    assert "differs from its network" in error
    assert "must be at" in error
    assert error.count("\n") == 1
    assert list(out.iterdir()) == []


def test_every_limit_can_refuse() -> None:
    limits = Limits(mask_iou=0.9, background_error=0.01, embedding_error=0.1, rank=0.8, selection=0.7)
    good = Parity(0.9, 0.01, 0.1, 0.8, 0.7, 1, 1)
    check(good, limits, "int8")
    wrong = {"mask_iou": 0.8, "background_error": 0.02, "embedding_error": 0.2, "rank": 0.7, "selection": 0.6}
    for name, value in wrong.items():
        for bad in (value, float("nan")):
            with pytest.raises(ModelError, match=name.split("_")[0]):
                check(replace(good, **{name: bad}), limits, "int8")


def test_parity_sees_a_network_with_other_masks(checkpoint: Path, exported: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    with torch.no_grad():
        loaded.network.kernels.weight.mul_(-1)
    parity = measure(TorchRunner(loaded), open_either(exported), drawn_frames(4, 0))
    assert parity.mask_iou < 0.9
    assert parity.selection < 0.9
    assert parity.background_error < 1e-3


def test_check_compares_any_two_files(
    checkpoint: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "check.json"
    arguments = ["check", str(checkpoint), str(exported), "--frames", "3", "--json", str(report)]
    assert command.main(arguments) == 0
    assert "at least 0.99" in capsys.readouterr().out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["holds"] is True
    assert found["frames"] == 3
    other = _with_other_background(checkpoint, tmp_path)
    assert command.main(["check", str(other), str(exported), "--frames", "3"]) == 4
    assert "NO" in capsys.readouterr().out
    assert command.main(["check", str(exported), str(exported), "--frames", "2"]) == 0


def test_sensitivity_measures_what_each_choice_costs(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    model = prepare(exported, tmp_path / "prepared.onnx")
    frames = list(drawn_frames(3, 9))
    found = histograms(model, activations(model), frames)
    network = TorchRunner(load_checkpoint(checkpoint))
    reference = [network.run(frame.feeds()) for frame in frames]
    study = Study(model, found, reference, frames, tmp_path, turns=2)
    plain = study.trial("plain")
    assert study.trial("everything in fp32", quantisable(model)).parity.embedding_error < 1e-4
    assert plain.parity.embedding_error > 0.003
    quantised = tmp_path / "quantised.onnx"
    write_quantised(model, quantised, tensor_ranges(found, "percentile"))
    assert measure(network, open_either(quantised), frames) == plain.parity
    assert plain.time_ratio > 0


def test_clips_give_frames_with_and_without_motion(tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    ground = np.random.default_rng(0).integers(0, 256, (64, 120, 3), np.uint8)
    for shift in range(8):
        video.write(np.ascontiguousarray(ground[:, shift : shift + 96]))
    video.release()
    frames = clip_frames(tmp_path, 8, 0)
    assert len(frames) == 8
    moving = [bool(frame.motion.any()) for frame in frames]
    assert any(moving)
    assert not all(moving)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="0 of 2 frames"):
        clip_frames(tmp_path / "empty", 2, 0)


def test_a_checkpoint_runs_in_the_engine(checkpoint: Path, exported: Path) -> None:
    """By the installed entry point, so the engine imports no torch by itself."""
    image = np.random.default_rng(0).integers(0, 256, (256, 448, 3), np.uint8)
    network = Network(checkpoint)
    assert network.backend == "torch"
    expected = Network(exported).run(image, None)
    assert network.run(image, None).background == pytest.approx(expected.background, abs=1e-3)
    first = network.run(image, None).background.copy()
    kept = network.run(image, None).background
    network.run(255 - image, None)
    assert np.array_equal(kept, first)


def test_reduced_precision_reads_masks_out_in_float32(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    exact, reduced = TorchRunner(loaded), TorchRunner(loaded, precision="bf16")
    feeds = next(drawn_frames(1, 4)).feeds()
    a, b = exact.run(feeds), reduced.run(feeds)
    assert all(value.dtype == np.float32 for value in b.values())
    assert 0 < np.abs(a["background"] - b["background"]).mean() < 0.02
    # Logits of magnitude 1 and more are not all multiples of bf16's steps.
    large = b["masks"][np.abs(b["masks"]) > 1]
    assert (torch.from_numpy(large).bfloat16().float().numpy() != large).mean() > 0.9


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_torch_without_a_gpu_says_why(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=f"torch {torch.__version__}".replace("+", r"\+")):
        open_torch(Request(ModelFile.read(checkpoint), "cuda"))
    assert command.main([str(checkpoint), "--to", "tensorrt", "--out", str(tmp_path / "m.pt2")]) == 4
    error = capsys.readouterr().err
    assert "--to tensorrt on cuda" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and torch for CUDA")
def test_a_captured_graph_gives_the_numbers_of_the_processor(checkpoint: Path) -> None:
    runners = [open_torch(Request(ModelFile.read(checkpoint), device)) for device in ("cpu", "cuda")]
    check(measure(*runners, drawn_frames(4, 3)), LIMITS["onnx"], "cuda")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "papyrus", "--out", "m.onnx"], "onnx, int8, openvino, tensorrt"),
        (["--to", "openvino", "--out", "m.onnx"], ".xml"),
        (["--to", "int8", "--half", "--out", "m.onnx"], "--half"),
        (["--to", "int8", "--any-batch", "--out", "m.onnx"], "--any-batch"),
        (["--to", "onnx", "--keep", "x", "--out", "m.onnx"], "--keep"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_exit_code_2(
    options: list[str], says: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(checkpoint), *options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_not_a_checkpoint_is_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    for name in ("x.pt", "absent.pt"):
        assert command.main([str(tmp_path / name), "--to", "onnx", "--out", str(tmp_path / "m.onnx")]) == 4
    assert capsys.readouterr().err.count("\n") == 2
