"""The slow-consumer report on real sockets, briefly; how young scenes are is for the report itself."""

import json
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from benchmarks import slow_subscriber
from benchmarks.slow_subscriber import ages, demo_scenes, main
from engine.errors import SourceError


def test_both_ways_of_reading_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "age.json"
    assert main(["--seconds", "1.5", "--fps", "60", "--size", "120x214", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    for way in ("newest", "every"):
        row = content[way]
        assert row["scenes"] > 0
        assert 0 < row["median_ms"] <= row["p95_ms"] <= row["max_ms"]
        assert row["published"] > 0
    # 60 a second and 50 ms each: two of three are replaced before they are read, or wait.
    assert content["newest"]["skipped"] > 0
    assert content["every"]["skipped"] == 0
    assert "within_promise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--size", "abc"], 2, "size=abc"),
        (["--fps", "0"], 2, "--fps 0"),
        (["--fps", "nan"], 2, "--fps nan"),
        (["--seconds", "0"], 2, "--seconds 0"),
        (["--sleep-ms", "-1"], 2, "--sleep-ms -1"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def failing_publisher(connection: Connection, fps: float, size: str) -> None:
    """Ends before it says where it is."""
    raise SystemExit(7)


def test_a_publisher_that_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_subscriber, "publish", failing_publisher)
    with pytest.raises(SourceError, match="exit code 7"):
        slow_subscriber.measure(30.0, 1.0, 1.0, "120x214")


def test_ages_are_held_against_the_promise() -> None:
    found = ages([10.0] * 38 + [49.9, 49.9, 50.0])
    assert found == {"scenes": 41, "median_ms": 10.0, "p95_ms": 49.9, "max_ms": 50.0, "within_promise": 0.9756}


def test_scenes_look_like_those_of_the_engine() -> None:
    for scene in demo_scenes(2, "120x214"):
        assert scene.labels.dtype == np.uint16
        assert {item.label for item in scene.objects} == set(np.unique(scene.labels).tolist()) - {0}
        for item in scene.objects:
            assert item.area == np.count_nonzero(scene.labels == item.label)
