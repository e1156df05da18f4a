"""The quality report as a whole, on folders made of the built-in scene, which knows its own truth."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.ablations import GreedySelection, WithoutImage, WithoutMotion, ablations, greedy
from benchmarks.contact_sheet import MAX_WIDTH_PX, worst_of_halves
from benchmarks.davis import change_sequence, read_ids, sequences
from benchmarks.measures import FrameScore
from benchmarks.quality import main
from engine.config import EngineConfig
from engine.errors import SourceError
from engine.perceive.motion import FEATURE_CHANNELS
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from streaming.sources import open_source

FRAMES = 9
SIZE = "120x214"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """davis_dev/ with two sequences, davis_multi/ with a palette's colours, highway/ with CDnet's grays, bins/."""
    root = tmp_path_factory.mktemp("data")
    colours = np.random.default_rng(0).integers(1, 255, (256, 3), np.uint8)
    colours[0] = 0
    for name, seed in (("one", 3), ("two", 4)):
        with open_source(f"demo://?frames={FRAMES}&seed={seed}&size={SIZE}") as source:
            for frame in source:
                assert frame.truth is not None
                truth, stem = frame.truth.astype(np.uint8), f"{frame.index:05d}"
                save(root / "davis_dev/JPEGImages/480p" / name / f"{stem}.jpg", frame.image)
                save(root / "davis_dev/Annotations/480p" / name / f"{stem}.png", np.where(truth > 0, 255, 0))
                if name == "one":
                    save(root / "davis_multi/JPEGImages/girls" / f"{stem}.jpg", frame.image)
                    save(root / "davis_multi/Annotations/girls" / f"{stem}.png", colours[truth])
                    save(root / "highway/input" / f"in{stem}.jpg", frame.image)
                    gray = np.where(truth > 0, 255, 50)
                    gray[:8] = 85
                    save(root / "highway/groundtruth" / f"gt{stem}.png", np.repeat(gray[:, :, None], 3, axis=2))
                if frame.index == 0:
                    save(root / "bins/images" / f"{name}.jpg", frame.image)
                    save(root / "bins/instances" / f"{name}.png", truth)
    return root


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image.astype(np.uint8))


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Everything the command writes, ablations included."""
    out = tmp_path_factory.mktemp("report")
    arguments = ["--data", str(data), "--json", str(out / "q.json"), "--overlays", str(out / "overlays")]
    arguments += ["--contact-sheet", str(out / "sheet.jpg"), "--ablations", "--ablation-model", "same=default"]
    assert main(arguments) == 0
    return json.loads((out / "q.json").read_text()), out


def test_the_report_has_every_part(report: tuple[dict[str, Any], Path]) -> None:
    content, _ = report
    assert set(content["sequences"]) == {"one", "two"}
    for row in content["sequences"].values():
        assert row["frames"] == FRAMES - 2
        assert row["commits_exact"] + row["commits_forced"] == FRAMES
    for key, mean in content["mean"].items():
        kind, measure = key.split()
        values = [row[kind][measure] for row in content["sequences"].values()]
        assert mean == pytest.approx(np.mean(values), abs=1e-4)
    girls = content["multi"]["girls"]
    assert len(girls["instances"]) >= 2
    assert girls["best_candidate"] >= girls["best_id"]
    assert girls["best_mask"] >= girls["best_id"]
    assert set(content["highway"]["highway"]["final"]) == {"J_fg", "J_pooled", "precision", "recall"}
    assert content["stills"]["bins"]["images"] == 2
    assert content["stills"]["bins"]["trained_on"] is False


def test_every_sequence_and_photograph_has_an_overlay(report: tuple[dict[str, Any], Path]) -> None:
    _, out = report
    for name in ("one", "two", "girls", "highway"):
        video = cv2.VideoCapture(str(out / "overlays" / f"{name}.mp4"))
        assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == FRAMES
        video.release()
    assert {p.stem for p in (out / "overlays" / "bins").iterdir()} == {"one", "two"}


def test_the_contact_sheet_shows_two_frames_per_sequence(report: tuple[dict[str, Any], Path]) -> None:
    _, out = report
    sheet = cv2.imread(str(out / "sheet.jpg"))
    assert sheet is not None
    assert sheet.shape[1] <= MAX_WIDTH_PX
    # Eight tiles in two rows of four, each of them with something in it.
    quarter = sheet.shape[1] // 4
    assert all(row[:, i * quarter : (i + 1) * quarter].std() > 10 for row in np.array_split(sheet, 2) for i in range(4))


def test_ablations_compare_with_the_whole_engine(report: tuple[dict[str, Any], Path]) -> None:
    content, _ = report
    rows = content["ablations"]
    assert list(rows) == ["motion off", "image off", "selection off", "seeds off", "history off", "same"]
    # The same model again is the same engine; every other variant changes something.
    assert set(rows["same"]["change"].values()) == {0.0}
    for name in ("motion off", "image off", "selection off"):
        assert any(rows[name]["change"].values())
    for row in rows.values():
        assert row["before"] == content["mean"]
        assert all(
            row["change"][k] == pytest.approx(row["after"][k] - row["before"][k], abs=2e-4) for k in row["before"]
        )
    for name in ("selection off", "history off"):
        assert rows[name]["after"]["final J_fg"] == rows[name]["after"]["provisional J_fg"]


def test_without_history_no_seed_remembers_either(default_model: Path) -> None:
    variants = {v.name: v.pipeline() for v in ablations(EngineConfig(), str(default_model), [])}
    assert [name for name, pipeline in variants.items() if not pipeline._config.seeds.enabled] == [
        "seeds off",
        "history off",
    ]
    assert variants["seeds off"]._config.select == EngineConfig().select
    assert variants["history off"]._config.select.lag == 0


def test_networks_without_an_input_do_not_look_at_it(default_model: Path) -> None:
    rng = np.random.default_rng(0)
    whole = Network(default_model)
    images = rng.integers(0, 255, (2, *whole.size, 3), np.uint8)
    motions = rng.normal(0, 1, (2, FEATURE_CHANNELS, *whole.motion_size)).astype(np.float32)

    def background(network: Network, image: int, motion: int) -> np.ndarray:
        out = network.run(images[image], motions[motion]).background
        assert out is not None
        return out

    blind, still = WithoutImage(default_model), WithoutMotion(default_model)
    assert (background(blind, 0, 0) == background(blind, 1, 0)).all()
    assert (background(blind, 0, 0) != background(blind, 0, 1)).any()
    assert (background(still, 0, 0) == background(still, 0, 1)).all()
    assert (background(still, 0, 0) != background(still, 1, 0)).any()
    # Zero after normalisation, up to the rounding of a float32 product.
    assert np.abs(blind._image).max() < 1e-5


def test_greedy_takes_the_best_scored_masks_that_do_not_exclude_each_other() -> None:
    masks = np.zeros((4, 8, 8), bool)
    masks[0, :4], masks[1, 2:6], masks[2, 6:], masks[3, 4:6] = True, True, True, True
    scores = np.array([0.5, 0.9, 0.4, 0.3])
    assert greedy(scores, masks, 0.4, 0.0) == (1, 2)  # 0 meets the better 1, 3 is below the level
    assert greedy(scores, masks, 0.0, 0.0) == (1, 2)  # 3 lies inside 1
    assert greedy(scores[:0], masks[:0], 0.4, 0.0) == ()


def test_greedy_pipeline_decides_every_frame_at_once(default_model: Path) -> None:
    pipeline = Pipeline(EngineConfig(), Network(default_model))
    pipeline.selection = GreedySelection(EngineConfig().select)
    with open_source(f"demo://?frames=4&seed=5&size={SIZE}") as source:
        kinds = [[(s.kind, s.frame_index) for s in pipeline.step(frame)] for frame in source]
    assert kinds == [[("final", i), ("provisional", i)] for i in range(4)]
    assert pipeline.flush() == []


def test_worst_frames_are_one_of_each_half() -> None:
    scores = [FrameScore(i, j, 0.0, 1.0, 1.0, 0.0, 1) for i, j in enumerate((0.5, 0.1, 0.2, 0.9, 0.4, 0.3))]
    assert [score.index for score in worst_of_halves(scores)] == [1, 5]


def test_colours_of_a_palette_are_ids(data: Path) -> None:
    (girls,) = sequences(data / "davis_multi", "")
    with open_source(f"demo://?frames={FRAMES}&seed=3&size={SIZE}") as source:
        for frame in source:
            assert frame.truth is not None
            ids = girls.truth(frame.index)
            assert len(np.unique(ids)) == len(np.unique(frame.truth))
            assert ((ids > 0) == (frame.truth > 0)).all()


def test_first_frames_and_chosen_parts_only(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.json"
    arguments = ["--data", str(data), "--parts", "davis", "--only", "two", "--frames", "4", "--json", str(out)]
    assert main(arguments) == 0
    content = json.loads(out.read_text())
    assert {name: row["frames"] for name, row in content["sequences"].items()} == {"two": 2}
    assert not {"multi", "highway", "stills", "ablations"} & set(content)


def test_a_davis_folder_itself_is_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data / "davis_dev"), "--only", "one", "--frames", "3"]) == 0
    assert "one" in capsys.readouterr().out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "{tmp}/nowhere"], 3, "no such folder"),
        (["--data", "{tmp}"], 3, "holds none of davis_dev"),
        (["--data", "{data}", "--parts", "coco"], 3, "no coco/"),
        (["--data", "{data}", "--parts", "dabis"], 2, "did you mean 'davis'"),
        (["--data", "{data}", "--parts", "bins", "--ablations"], 2, "--parts davis"),
        (["--data", "{data}", "--ablation-model", "x=default"], 2, "needs --ablations"),
        (["--data", "{data}", "--parts", "davis", "--only", "three"], 2, "no sequence of that name"),
        (["--data", "{data}", "--model", "nobody"], 4, "no such file"),
        (["--data", "{data}", "--set", "lag"], 2, "KEY=VALUE"),
        (["--data", "{data}", "--parts", "bins", "--images", "1", "--json", "{tmp}"], 5, "--json"),
        (["--data", "{data}", "--overlays", "{data}/bins/images/one.jpg"], 5, "--overlays"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(
    arguments: list[str], code: int, says: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp=tmp_path, data=data) for argument in arguments]) == code
    assert says in one_line(capsys)


def test_broken_footage_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data / "davis_dev"
    for name in (f"{i:05d}" for i in range(3)):
        save(tmp_path / "JPEGImages/480p/cut" / f"{name}.jpg", read_ids(source / f"Annotations/480p/one/{name}.png"))
        save(tmp_path / "Annotations/480p/cut" / f"{name}.png", read_ids(source / f"Annotations/480p/one/{name}.png"))
    (tmp_path / "JPEGImages/480p/cut/00001.jpg").write_bytes(b"\xff\xd8 no image")
    assert main(["--data", str(tmp_path)]) == 3
    assert "00001.jpg: not a readable image" in one_line(capsys)
    (tmp_path / "JPEGImages/480p/cut/00001.jpg").unlink()
    assert main(["--data", str(tmp_path)]) == 3
    assert "2 frames but 3 masks" in one_line(capsys)


def test_layouts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="CDnet layout"):
        change_sequence(tmp_path)
    (tmp_path / "JPEGImages" / "480p").mkdir(parents=True)
    with pytest.raises(SourceError, match="holds no sequence"):
        list(sequences(tmp_path))
