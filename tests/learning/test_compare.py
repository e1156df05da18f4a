"""A new model replaces the old one only when both opinions agree."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.perceive.network import DEFAULT_MODEL  # noqa: E402
from learning import compare, consistency, validate  # noqa: E402
from learning.compare import OnnxProposals  # noqa: E402
from learning.footage import is_held_out  # noqa: E402
from streaming.sources.demo import DemoSource  # noqa: E402


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    name = next(f"kept{chr(97 + i)}" for i in range(26) if is_held_out(Path(f"kept{chr(97 + i)}")))
    folder = tmp_path / "clips" / "general"
    folder.mkdir(parents=True)
    writer = cv2.VideoWriter(str(folder / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (448, 256))
    source = DemoSource("demo://?frames=6&size=256x448")
    while (frame := source.read()) is not None:
        writer.write(frame.image)
    writer.release()
    return tmp_path / "clips"


def measured(held_out: float, *clips: float | None) -> compare.Measured:
    return compare.Measured(
        validate.Figures(held_out, held_out, held_out), consistency.Figures(0.0, 0.0, 0.0, 0.0, len(clips), 10, clips)
    )


def test_both_opinions_must_be_higher() -> None:
    old = measured(0.6, 0.4, 0.5, None)
    assert measured(0.61, 0.41, 0.51, None).is_better_than(old)
    assert not measured(0.61, 0.39, 0.49, None).is_better_than(old)
    assert not measured(0.59, 0.41, 0.51, None).is_better_than(old)
    assert not old.is_better_than(old)


def test_a_gain_on_clips_must_exceed_its_standard_error() -> None:
    old = measured(0.6, 0.2, 0.4, 0.6, None)
    # Gains 0.3, 0, 0: mean 0.1 and s = sqrt(0.03), whose error sqrt(0.03 / 3) is exactly as large.
    assert measured(0.61, 0.5, 0.4, 0.6, None).clip_gain(old) == pytest.approx((0.1, 0.1))
    assert not measured(0.61, 0.499, 0.4, 0.599, None).is_better_than(old)
    # The same mean, found on every clip.
    assert measured(0.61, 0.29, 0.5, 0.71, None).is_better_than(old)
    # One clip says nothing of the others.
    assert not measured(0.61, 0.9, None).is_better_than(measured(0.6, 0.1, None))


def test_a_model_is_not_better_than_itself(shard_folder: Path, clips: Path, tmp_path: Path) -> None:
    arguments = ["--old", str(DEFAULT_MODEL), "--new", str(DEFAULT_MODEL), "--data", str(shard_folder)]
    assert compare.main([*arguments, "--clips", str(clips), "--json", str(tmp_path / "new" / "f.json")]) == 0
    content = json.loads((tmp_path / "new" / "f.json").read_text())
    assert content["new_is_better"] is False
    assert content["old"] == content["new"]
    assert content["old"]["clips"]["frames"] == 6
    assert 0 < content["old"]["held_out"]["best_iou"] < 1


def _without_motion(path: Path) -> Path:
    """A model with every output that looks at the image alone, and sees nothing in it."""
    models = pytest.importorskip("tests.models", reason="needs onnx")
    shapes = {"masks": [1, 3, *models.GRID], "background": [1, 1, *models.GRID], "embedding": [1, 4, *models.GRID]}
    constants = {name: np.zeros(shape, np.float32) for name, shape in {**shapes, "scores": [1, 3]}.items()}
    nodes = [models.helper.make_node("Identity", [f"{name}_value"], [name]) for name in constants]
    return models.save(
        path,
        nodes,
        {"image": [1, 3, *models.SIZE]},
        {name: list(value.shape) for name, value in constants.items()},
        {f"{name}_value": value for name, value in constants.items()},
    )


def test_a_model_of_another_size_answers_at_the_grid_of_the_samples(tmp_path: Path) -> None:
    models = pytest.importorskip("tests.models", reason="needs onnx")
    # Every output is a plane of the inputs at a quarter of 128x224: what was seen can be read off the answer.
    pool = {"kernel_shape": [4, 4], "strides": [4, 4]}
    nodes = [
        models.helper.make_node("AveragePool", ["image"], ["masks"], **pool),
        models.helper.make_node("ReduceMean", ["motion"], ["scores_4d"], axes=[2, 3], keepdims=1),
        models.helper.make_node("Reshape", ["scores_4d", "shape"], ["all_scores"]),
        models.helper.make_node("Slice", ["all_scores", "start", "stop", "along"], ["scores"]),
        models.helper.make_node("Slice", ["masks", "start", "one", "along"], ["background"]),
        models.helper.make_node("Identity", ["masks"], ["embedding"]),
    ]
    numbers = {"shape": [1, 5], "start": [0], "stop": [3], "one": [1], "along": [1]}
    path = models.save(
        tmp_path / "small.onnx",
        nodes,
        {"image": [1, 3, 128, 224], "motion": [1, 5, 64, 112]},
        {"masks": [1, 3, 32, 56], "scores": [1, 3], "background": [1, 1, 32, 56], "embedding": [1, 3, 32, 56]},
        {name: np.array(value, np.int64) for name, value in numbers.items()},
    )
    ramp = torch.linspace(0, 1, 256)[:, None].expand(256, 448)
    motion = torch.full((2, 5, 128, 224), 0.25)
    found = OnnxProposals(path)(torch.stack([ramp, ramp, ramp])[None].expand(2, -1, -1, -1), motion)
    assert found.masks.shape == (2, 3, 64, 112)
    assert found.background.shape == (2, 1, 64, 112)
    rows = found.masks[0, 0].mean(dim=1)
    assert torch.allclose(rows, torch.linspace(0, 1, 64), atol=0.02)
    assert torch.allclose(found.scores, torch.full((2, 3), 0.25))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--limit", "0"], 2, "--limit 0"),
        (["--frames", "1"], 2, "--frames 1"),
        (["--json", "{tmp}"], 5, "is a folder"),
        (["--json", "{tmp}/file/f.json"], 5, "--json"),
        (["--old", "{motion}"], 4, "no output 'embedding'"),
        (["--old", "{still}"], 4, "no input 'motion'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    shard_folder: Path,
    clips: Path,
    motion_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    still = _without_motion(tmp_path / "still.onnx")
    whole = ["--old", str(DEFAULT_MODEL), "--new", str(DEFAULT_MODEL), "--data", str(shard_folder)]
    filled = [a.format(tmp=tmp_path, motion=motion_model, still=still) for a in arguments]
    assert compare.main([*whole, "--clips", str(clips), *filled]) == code
    message = capsys.readouterr().err.strip()
    assert words in message
    assert "\n" not in message


def test_clips_that_are_all_training_clips_are_refused(
    shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    arguments = ["--old", str(DEFAULT_MODEL), "--new", str(DEFAULT_MODEL), "--data", str(shard_folder)]
    assert compare.main([*arguments, "--clips", str(tmp_path / "clips")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
