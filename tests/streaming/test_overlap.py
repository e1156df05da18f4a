"""Seeing one frame while another is decided is a switch of the command line, and changes no mask."""

from pathlib import Path

import pytest

from engine.config import EngineConfig, apply
from engine.run import main


def test_the_switch_has_three_positions() -> None:
    assert EngineConfig().perceive.overlap is None
    for text, value in (("true", True), ("false", False), ("none", None)):
        assert apply(EngineConfig(), {"perceive.overlap": text}).perceive.overlap is value


def test_masks_are_the_same_either_way(motion_model: Path, tmp_path: Path) -> None:
    saved = []
    for overlap in ("false", "true"):
        out = tmp_path / overlap
        arguments = ["--source", "demo://?frames=12&seed=5&size=240x428", "--model", str(motion_model), "--no-publish"]
        assert main([*arguments, "--save-masks", str(out), "--set", f"perceive.overlap={overlap}"]) == 0
        saved.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.png"))})
    sequential, overlapped = saved
    assert len(sequential) >= 12
    assert overlapped == sequential


def test_the_session_is_told(motion_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    from streaming import launch

    class Recorded(launch.Session):
        def __init__(self, *arguments: object, **options: object) -> None:
            told.append(options["overlap"])
            super().__init__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(launch, "Session", Recorded)
    arguments = ["--source", "demo://?frames=2&size=120x160", "--model", str(motion_model), "--no-publish"]
    assert main([*arguments, "--set", "perceive.overlap=true"]) == 0
    assert told == [True]
