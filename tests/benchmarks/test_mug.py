"""The report on MuG: figures of known maps, every part on a tiny sequence, and what it refuses."""

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import mug  # noqa: E402
from benchmarks.mug_ablations import OPTIONS, held_out, variants  # noqa: E402
from learning.networks.mug import Mug  # noqa: E402


@pytest.fixture
def sequence_folder(tmp_path: Path) -> Path:
    """Five frames of a bright disc moving over a textured ground, in the DAVIS layout."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 90, (24, 40, 3)).astype(np.uint8), (160, 96), interpolation=cv2.INTER_CUBIC)
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name / "480p" / "disc").mkdir(parents=True)
    for number in range(5):
        mask = np.zeros((96, 160), np.uint8)
        cv2.circle(mask, (60 + 4 * number, 48), 20, 255, -1)
        image = np.where(mask[..., None] > 0, np.uint8([60, 60, 230]), ground)
        cv2.imwrite(str(tmp_path / "JPEGImages" / "480p" / "disc" / f"{number:05d}.jpg"), image)
        cv2.imwrite(str(tmp_path / "Annotations" / "480p" / "disc" / f"{number:05d}.png"), mask)
    return tmp_path


def test_figures_are_means_over_frames_and_sequences() -> None:
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    half = truth.copy()
    half[10:20] = False
    tally = mug.Tally()
    tally.add("a", truth, truth)
    tally.add("a", truth, half)
    row = tally.figures()["a"]
    assert row["J"] == pytest.approx(0.75)
    assert 0.5 < row["F"] < 1
    other = {"a": {"J": 0.25, "F": row["F"]}}
    assert mug.mean_rows({"x": {"a": row}, "y": other})["a"]["J"] == pytest.approx(0.5)


def test_every_part_is_scored_and_reported(sequence_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = sequence_folder / "out" / "mug.json"
    assert mug.main(["--data", str(sequence_folder), "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    means = content["objects"]["mean"]
    assert set(means) == {"saliency", *(f"untrained, {name}" for name in mug.READ_OUTS)}
    # A red disc on dull ground is what saliency was made for; its map has cells of four pixels.
    assert means["saliency"]["J"] > 0.8
    assert all(0 <= value <= 1 for row in means.values() for value in row.values())
    assert set(content["instances"]["disc"]) >= {"J_fg", "F_fg", "J_best_id", "per instance, best_id"}
    assert set(content["one-shot"]["disc"]) == {"untrained"}
    assert "object level" in capsys.readouterr().out


def test_a_variant_counts_once_it_has_been_trained_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "without-short").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.html").touch()
    assert variants(tmp_path) == {"full": tmp_path / "full"}
    assert set(OPTIONS) == {
        "full", "full-seed-1", "full-seed-2", "without-frame", "without-short", "without-long", "without-video",
        "one-round", "three-rounds",
    }  # fmt: skip
    assert len({tuple(told) for told in OPTIONS.values()}) == len(OPTIONS)


def test_held_out_figures_are_those_at_the_end(tmp_path: Path) -> None:
    assert held_out(tmp_path) == {}
    history = [{"step": 1, "held agreement": 0.2}, {"step": 9, "held agreement": 0.5, "held long": -0.3, "total": 1.0}]
    (tmp_path / "history.json").write_text(json.dumps(history))
    assert held_out(tmp_path) == {"held agreement": 0.5, "held long": -0.3}


def test_trained_variants_are_scored_without_clips(
    sequence_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, report = tmp_path / "runs", tmp_path / "out.json"
    (runs / "full").mkdir(parents=True)
    torch.manual_seed(0)
    content = {"objective": "mug", "config": asdict(Mug().config), "state": Mug().state_dict(), "training": {}}
    torch.save(content, runs / "full" / "model.pt")
    (runs / "full" / "report.html").touch()
    (runs / "full" / "history.json").write_text(json.dumps([{"held agreement": 0.25}]))
    arguments = ["--data", str(sequence_folder), "--parts", "", "--ablations", str(runs), "--json", str(report)]
    assert mug.main(arguments) == 0
    row = json.loads(report.read_text())["ablations"]["full"]
    assert row["held agreement"] == 0.25
    assert set(row) == {"held agreement", *mug.READ_OUTS}
    assert "0.250" in capsys.readouterr().out


def test_what_cannot_be_measured_is_said_in_one_line(sequence_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(sequence_folder)
    for arguments, code, said in (
        (["--data", data, "--parts", "colours"], 2, "--parts colours: unknown"),
        (["--data", data, "--run", str(sequence_folder)], 3, "holds no round1.pt"),
        (["--data", data, "--parts", "one-shot", "--ablations", data], 2, "holds no trained variant"),
        (["--data", str(sequence_folder / "nowhere")], 3, "nowhere"),
    ):
        assert mug.main(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
