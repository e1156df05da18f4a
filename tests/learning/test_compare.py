"""A new model replaces the old one only when both opinions agree."""

import json
from pathlib import Path

import cv2
import pytest

pytest.importorskip("torch")

from engine.perceive.network import DEFAULT_MODEL
from learning import compare, consistency, validate
from learning.footage import is_held_out
from streaming.sources.demo import DemoSource


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


def measured(held_out: float, clips: float) -> compare.Measured:
    return compare.Measured(
        validate.Figures(held_out, held_out, held_out), consistency.Figures(clips, clips, 0.0, clips, 1, 10)
    )


def test_both_opinions_must_be_higher() -> None:
    old = measured(0.6, 0.4)
    assert measured(0.61, 0.41).is_better_than(old)
    assert not measured(0.61, 0.39).is_better_than(old)
    assert not measured(0.59, 0.41).is_better_than(old)
    assert not old.is_better_than(old)


def test_a_model_is_not_better_than_itself(shard_folder: Path, clips: Path, tmp_path: Path) -> None:
    arguments = ["--old", str(DEFAULT_MODEL), "--new", str(DEFAULT_MODEL), "--data", str(shard_folder)]
    assert compare.main([*arguments, "--clips", str(clips), "--json", str(tmp_path / "f.json")]) == 0
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["new_is_better"] is False
    assert content["old"] == content["new"]
    assert content["old"]["clips"]["frames"] == 6
    assert 0 < content["old"]["held_out"]["best_iou"] < 1


def test_clips_that_are_all_training_clips_are_refused(
    shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    arguments = ["--old", str(DEFAULT_MODEL), "--new", str(DEFAULT_MODEL), "--data", str(shard_folder)]
    assert compare.main([*arguments, "--clips", str(tmp_path / "clips")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
