"""AMD learning beside the engine: good streams are placed, poison is not, and figures are paired as they say."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("pycocotools")

from benchmarks import online_amd, online_amd_speed  # noqa: E402
from engine.errors import ModelError  # noqa: E402
from engine.registry import Registry  # noqa: E402
from learning.amd.checkpoint import model_content  # noqa: E402
from learning.amd.online import OnlineLearner, OnlineSettings  # noqa: E402
from learning.networks.amd import Amd, AmdConfig  # noqa: E402
from tests.learning.amd.scenes import channels_first, moving_square  # noqa: E402

SMALL = AmdConfig(segments=3, head=8, pyramid=(8, 8, 8), motion=8, readout=16)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def network() -> Amd:
    torch.manual_seed(0)
    return Amd(SMALL).eval()


@pytest.fixture
def base(network: Amd, tmp_path: Path) -> Path:
    torch.save(model_content(network, 1, {"channel_rule": "relative"}), tmp_path / "base.pt")
    return tmp_path / "base.pt"


def test_a_stream_worth_learning_is_placed_and_counted(network: Amd, tmp_path: Path) -> None:
    frames = [channels_first(moving_square(8, seed=seed, step_px=3 + seed % 3)) for seed in range(12)]
    pairs = [clip[i : i + 2] for clip in frames for i in range(7)]
    # From random weights, so few steps only get nearer to what standing still would explain.
    settings = OnlineSettings(
        steps=45, batch=2, rate=2e-3, decay=0.8, min_pairs=12, share=1.0, patience=3, min_explained=-10.0
    )
    registry = Registry(tmp_path / "registry")
    seen: list[str] = []

    def swapped() -> None:
        current = registry.current()
        assert current is not None
        seen.append(current.name)

    row = online_amd.learn(OnlineLearner(network, settings), [pairs[0], *pairs], 70, registry, swapped)
    assert row["pairs"] + sum(row["refused"].values()) == len(pairs) + 1
    assert row["refused"]["repeated"] >= 1
    assert (row["rounds"], row["swaps"]) == (1, 1)
    assert "fell by" in row["last"]
    assert len(seen) == 1


def test_every_poisoned_stream_ends_without_a_swap(base: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    assert online_amd.main(["--base", str(base), "--poison", "--min-pairs", "4", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["poison"]
    assert set(rows) >= {"noise", "black", "one picture", "two in a loop"}
    for row in rows.values():
        assert row["swaps"] == 0
        assert row["pairs"] + sum(row["refused"].values()) == 89


def _footage(folder: Path) -> Path:
    texture = np.random.default_rng(0).integers(0, 256, (128, 300, 3), np.uint8)
    for kind in ("JPEGImages", "Annotations"):
        (folder / "davis_dev" / kind / "480p" / "walk").mkdir(parents=True)
    for index in range(6):
        image, mask = np.ascontiguousarray(texture[:, index : index + 256]), np.zeros((128, 256), np.uint8)
        cv2.circle(image, (60 + 8 * index, 64), 30, (20, 20, 230), -1)
        cv2.circle(mask, (60 + 8 * index, 64), 30, 255, -1)
        for kind, picture, suffix in (("JPEGImages", image, "jpg"), ("Annotations", mask, "png")):
            cv2.imwrite(str(folder / "davis_dev" / kind / "480p" / "walk" / f"{index:05d}.{suffix}"), picture)
    return folder


def test_what_was_not_replaced_scores_as_before(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--base", str(base), "--data", str(_footage(tmp_path)), "--recorded-with", "network"]
    assert online_amd.main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    row = content["sequences"]["walk"]
    # Six frames make five pairs at most: too few for a round.
    assert (row["rounds"], row["swaps"]) == (0, 0)
    assert row["recorded"] <= 6
    assert 0 <= row["before"] == row["after"] <= 1
    assert row["trail"] == [row["before"]]
    assert content["worst"] == content["worst_swap"] == content["worst_fall"] == 0
    assert content["channel"] == "relative"
    assert "worst change" in capsys.readouterr().out
    assert online_amd.main([*arguments, "--only", "run"]) == 2


def test_falls_are_from_swap_to_swap_and_from_the_best() -> None:
    assert online_amd.falls([0.3]) == {"worst_swap": 0.0, "worst_fall": 0.0}
    assert online_amd.falls([0.0, 0.2, 0.5]) == {"worst_swap": 0.2, "worst_fall": 0.0}
    assert online_amd.falls([0.1, 0.6, 0.5, 0.55, 0.4]) == {"worst_swap": -0.15, "worst_fall": -0.2}


def test_neighbouring_runs_make_a_pair() -> None:
    rows = [
        {"learner": False, "fps": 50.0},
        {"learner": True, "fps": 45.0, "share": 0.2},
        {"learner": True, "fps": 36.0, "share": 0.3},
        {"learner": False, "fps": 40.0},
    ]
    assert online_amd_speed.summary(rows) == {
        "fps_without": 45.0,
        "fps_with": 40.5,
        "lost": pytest.approx(0.1),
        "share": pytest.approx(0.25),
    }


def test_a_learner_that_does_not_start_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"none\.pt"),
        online_amd_speed.learner(tmp_path / "store.db", tmp_path / "registry", tmp_path / "none.pt"),
    ):
        pytest.fail("there is nothing to learn with")


def test_what_cannot_be_measured_is_an_exit_code(base: Path, tmp_path: Path) -> None:
    assert online_amd.main(["--base", str(base)]) == 2
    assert online_amd.main(["--base", str(base), "--source", "demo", "--cue", "telepathy"]) == 2
    assert online_amd.main(["--base", str(tmp_path / "none.pt"), "--poison"]) == 4
    assert online_amd.main(["--base", str(base), "--data", str(tmp_path)]) == 3
