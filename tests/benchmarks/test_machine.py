"""Reports find their folder, and say in one line when they cannot be written."""

import json
from pathlib import Path

import pytest

from benchmarks import machine, perception, seeds_cost
from engine.errors import StoreError

SOURCE = "demo://?frames=17&size=64x112"


def test_a_report_makes_its_folder_and_names_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "of" / "today" / "report.json"
    machine.write_report(path, {"ms": 1.5})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["ms"] == 1.5
    assert content["machine"]["cores"] >= 1
    machine.write_report(None, {"ms": 1.5})


@pytest.mark.parametrize("name", ["", "file/report.json"])
def test_a_report_that_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--json") as caught:
        machine.write_report(tmp_path / name, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("main", [perception.main, seeds_cost.main])
def test_commands_say_so_too(main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert main(["--source", SOURCE, "--frames", "17", "--json", str(tmp_path)]) == 5
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--json" in line
