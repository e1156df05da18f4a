"""Swaps in a real engine process with a subscriber: nothing lost, one generation each, nothing left behind."""

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx")
from benchmarks.hot_swap import Heard, lateness_ms, main, measure, summary

# Not live: the engine works flat out, and whatever is lost is lost by the engine, not by a busy machine.
SCENE = "demo://?frames=0&size=120x214"


def test_swaps_under_load_lose_nothing(motion_model: Path, tmp_path: Path) -> None:
    swaps, out = 3, tmp_path / "out.json"
    arguments = ["--swaps", str(swaps), "--every-s", "0.3", "--source", SCENE, "--model", str(motion_model)]
    assert main([*arguments, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["generation_steps"] == {"1": swaps}
    assert result["two_models_for_one_frame"] == 0
    # What a subscriber on a busy machine did not read in time says nothing about the engine.
    missed = result["missed_by_subscriber"]
    assert result["during_swaps"]["lost"] + result["control"]["lost"] <= missed
    assert result["finals_missing"] <= missed
    assert result["frames"] > swaps


@pytest.mark.slow
def test_a_hundred_swaps_leave_nothing_behind(motion_model: Path) -> None:
    result = measure(motion_model, SCENE, 100, 0.1, [])
    assert result["generation_steps"] == {"1": 100}
    assert result["during_swaps"]["lost"] == result["finals_missing"] == result["two_models_for_one_frame"] == 0
    for name, most in (("rss_mb", 10.0), ("threads", 0.0), ("files", 0.0)):
        assert result[name]["last_quarter"] - result[name]["second_quarter"] <= most, result[name]


def test_what_the_summary_counts() -> None:
    def heard(kind: str, frame: int, generation: int, age_ms: float = 20.0) -> Heard:
        capture = int(frame * 1e9)
        return Heard(kind, frame, generation, capture, capture + int(age_ms * 1e6))

    scenes = [heard("provisional", frame, 1) for frame in range(5)]
    scenes += [heard("provisional", 6, 2, 170.0), heard("provisional", 7, 2)]
    scenes += [heard("final", frame, 1) for frame in (0, 1, 2, 4, 6, 7)]
    result = summary(scenes, [int(5.5e9)], [(int(1.5e9), int(3.5e9))])
    assert result["frames"] == 7
    assert result["generation_steps"] == {"1": 1}
    assert (result["during_swaps"]["lost"], result["control"]["lost"]) == (1, 0)
    assert (result["during_swaps"]["delayed"], result["control"]["delayed"]) == (1, 0)
    assert result["control"]["frames"] == 2
    assert result["finals_missing"] == 1
    assert result["two_models_for_one_frame"] == 2
    assert result["during_swaps"]["delay_ms"]["max"] == pytest.approx(150.0)
    assert result["placed_to_first_scene_s"]["max"] == pytest.approx(0.67)


def test_a_reader_that_was_held_up_hides_no_lateness() -> None:
    period_ns = 100_000_000
    # Read late, published at once: the age is 20 ms, the clip's clock says 20, 20, 320, 220, 120, 20.
    held = [0, 0, 300, 200, 100, 0]
    scenes = [
        Heard("provisional", i, 1, i * period_ns + late * 1_000_000, i * period_ns + (late + 20) * 1_000_000)
        for i, late in enumerate(held)
    ]
    assert lateness_ms(scenes, period_ns) == pytest.approx([20, 20, 320, 220, 120, 20])
    assert lateness_ms(scenes, 0) == pytest.approx([20] * 6)


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "absent.onnx"), "--json", str(tmp_path / "o.json")]) == 4
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "o.json").exists()
