"""Configuration: unknown keys name the nearest, values keep their type, files round-trip."""

import json
from pathlib import Path

import pytest

from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import UsageError


def test_set_changes_one_value_and_keeps_the_rest() -> None:
    config = configuration.apply(EngineConfig(), {"select.lag": "3"})
    assert config.select.lag == 3
    assert config.propose == EngineConfig().propose


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("select.lagg", "3", "select.lag"),
        ("selct.lag", "3", "select.lag"),
        ("lag", "3", "select.lag"),
        ("select.lag", "soon", "int"),
        ("select.lag", "-1", ">= 0"),
        ("select.flow_form", "raft", "explained"),
        ("select.warped", "maybe", "bool"),
        ("propose.foreground_thresholds", "0.3,x", "float"),
        ("propose.foreground_thresholds", "1", "between 0 and 1"),
        ("propose.min_area", "nan", "at least 0"),
        ("propose.proposals", "-1", "1 ... 1000"),
        ("perceive.threads", "-3", "1 ... 256"),
        ("identity.recall_similarity", "0", "above 0"),
    ],
)
def test_bad_settings_are_one_line_that_helps(key: str, value: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        configuration.apply(EngineConfig(), {key: value})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_and_booleans_are_read_from_text() -> None:
    settings = {"propose.foreground_thresholds": "0.4,0.6", "select.warped": "false"}
    config = configuration.apply(EngineConfig(), settings)
    assert config.propose.foreground_thresholds == (0.4, 0.6)
    assert config.select.warped is False


def test_printed_configuration_reads_back(tmp_path: Path) -> None:
    changed = configuration.apply(EngineConfig(), {"select.lag": "2", "propose.min_area": "0.01"})
    path = tmp_path / "config.json"
    path.write_text(configuration.to_json(changed))
    assert configuration.apply(EngineConfig(), configuration.load(path)) == changed


@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_unreadable_files_are_usage_errors(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UsageError):
        configuration.load(path)
    with pytest.raises(UsageError, match="No such file"):
        configuration.load(tmp_path / "absent.json")


def test_flat_keys_are_accepted_in_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"select.lag": 1}))
    assert configuration.apply(EngineConfig(), configuration.load(path)).select.lag == 1
