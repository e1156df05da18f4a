"""The adaptation report: percepts computed once must give what the engine gives, and every switch must reach it."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.adaptation import COUPLED, COUPLINGS, MEASURES, REFRESHES, ShotScore, demo_shot, main, perceive, replay
from engine.config import EngineConfig, apply
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.seeds.stage import SeedFrame

FRAMES = 10
SIZE = "240x428"


@pytest.fixture(scope="module")
def network(default_model: Path) -> Network:
    return Network(default_model)


def test_replayed_percepts_give_what_the_engine_gives(network: Network) -> None:
    shot = demo_shot(203, FRAMES, SIZE)
    taught = apply(EngineConfig(), COUPLINGS["all on"])
    percepts = perceive(shot, taught, network)
    score = ShotScore(shot)
    pipeline = Pipeline(taught, network)
    for frame in shot.frames:
        for scene in pipeline.step(frame):
            score.decided(scene)
    for scene in pipeline.flush():
        score.decided(scene)
    engine = score.figures()
    found = replay(shot, percepts, taught, network)
    assert found["frames"] == FRAMES - 2
    assert found["J_best_id"] > 0
    for key in ("J_fg", "J_best_id"):
        assert found[key] == engine[key]
    # No variant may leave a trace in the percepts that the next one gets.
    off = replay(shot, percepts, apply(EngineConfig(), {"seeds.enabled": False}), network)
    assert (off["J_P_FG"], off["J_map"], off["P_FG_frames"]) == (None, None, 0.0)
    assert replay(shot, percepts, taught, network) == found


def test_overlap_of_the_memories_foreground_is_that_of_the_map_cut_at_one_half(network: Network) -> None:
    shot = demo_shot(203, 3, SIZE)
    percepts = perceive(shot, EngineConfig(), network)[1]
    truth = cv2.resize((shot.truths[1] > 0).astype(np.float32), (112, 64), interpolation=cv2.INTER_AREA)
    score = ShotScore(shot)
    for index in range(3):
        corrected = dataclasses.replace(percepts, background=1.0 - truth)
        score.advised(index, SeedFrame(corrected, 0, 0, 0, None, truth), np.ones_like(truth))
    figures = score.figures()
    assert figures["P_FG_frames"] == 1.0  # only frame 1 counts
    assert 0.8 < figures["J_P_FG"] <= 1.0
    assert figures["J_map"] == figures["J_P_FG"]
    assert figures["J_network"] == 0.0


def test_the_command_reports_every_row_of_the_built_in_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adaptation.json"
    assert main(["--demo", "--seeds", "203", "--frames", str(FRAMES), "--size", SIZE, "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert list(content["k"]) == list(REFRESHES)
    assert list(content["couplings"]) == list(COUPLINGS)
    assert list(content["coupled"]) == list(COUPLED)
    for row in [*content["k"].values(), *content["coupled"].values(), *content["couplings"].values()]:
        assert set(row["mean"]) == set(MEASURES)
        assert row["mean"]["J_fg"] == row["sequences"]["demo 203"]["J_fg"]
    assert content["couplings"]["all off"]["mean"]["J_P_FG"] is None
    assert content["couplings"]["learn_memory off"]["mean"]["J_P_FG"] is None
    printed = capsys.readouterr().out
    assert "never" in printed
    assert "learn_memory off" in printed


def test_annotated_sequences_one_part(tmp_path: Path) -> None:
    for frame in demo_shot(3, 4, "120x214").frames:
        for kind, suffix, image in (
            ("JPEGImages", "jpg", frame.image),
            ("Annotations", "png", (frame.truth > 0) * np.uint8(255)),
        ):
            path = tmp_path / "davis_dev" / kind / "480p" / "one" / f"{frame.index:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
    out = tmp_path / "k.json"
    assert main(["--data", str(tmp_path), "--parts", "k", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert "couplings" not in content
    assert content["k"]["never"]["sequences"]["one"]["frames"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "{tmp}"], 3, "holds no davis_dev/"),
        (["--demo", "--set", "seeds.gow=1"], 2, "seeds.grow"),
        (["--demo", "--model", "nobody"], 4, "no such file"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(
    arguments: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]
