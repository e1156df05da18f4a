"""The benchmark measures what it says, briefly."""

import json
from pathlib import Path

from benchmarks.ros import main


def test_ages_and_rates_are_reported(tmp_path: Path):
    report = tmp_path / "ros.json"
    assert main(["--backends", "zenoh", "--seconds", "1", "--size", "120x160", "--json", str(report)]) == 0
    result = json.loads(report.read_text())
    for topic in ("labels", "detections"):
        assert 0 < result["zenoh"][topic]["received"] <= result["zenoh"]["published"]
        assert 0 < result["zenoh"][topic]["p50_ms"] <= result["zenoh"][topic]["p99_ms"]
    assert set(result["encoding_ms"]) == {"labels", "detections", "label_info", "overlay"}
