"""A disk that becomes full under a live run: the engine goes on to the end, and says what is not there."""

import json
from pathlib import Path

import pytest

from engine.run import main

FRAMES = 60
ROOM_BYTES = 200_000


@pytest.mark.parametrize(
    ("option", "name", "exit_code", "said"),
    [
        ("--record", "a.store", 0, "the disk is full"),
        ("--mcap", "a.mcap", 0, "recording waits until there is room, the engine goes on"),
        ("--save-masks", "masks", 5, "what follows is not written, the engine goes on"),
        ("--overlay", "a.mp4", 5, "(is the disk full?)"),
    ],
)
def test_every_frame_is_seen_while_the_disk_is_full(
    small_disk: Path,
    tmp_path: Path,
    motion_model: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    option: str,
    name: str,
    exit_code: int,
    said: str,
) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**20 - ROOM_BYTES))
    stats = tmp_path / "stats.json"
    arguments = ["--source", "demo://?live=1&frames=0&fps=20&size=240x428", "--model", str(motion_model)]
    arguments += ["--max-frames", str(FRAMES), "--no-publish", "--stats-json", str(stats), "--set", "record.interval=1"]
    assert main([*arguments, option, str(small_disk / name)]) == exit_code
    told = capfd.readouterr().err
    assert said in told + caplog.text
    assert "Traceback" not in told
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == (exit_code != 0)
    content = json.loads(stats.read_text())
    assert content["frames"] == FRAMES
    assert content["captured"] == content["frames"] + sum(content["dropped"].values())
