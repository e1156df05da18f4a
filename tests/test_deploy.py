"""What users copy works here: every option in the unit, the image and the pages exists, and the unit is valid."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.run import parse_arguments
from streaming import keys
from streaming.control.__main__ import build_parser as control_parser
from streaming.metrics_server import parse_address
from streaming.services import check

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "deploy" / "unseen.service"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def logical_lines(path: Path) -> list[str]:
    """Lines with backslash continuations joined."""
    return re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8")).splitlines()


def engine_commands() -> list[tuple[str, list[str]]]:
    """(where, arguments) of every engine command line in what users copy."""
    unit = UNIT.read_text(encoding="utf-8")
    commands = [("unseen.service", shlex.split(re.search(r'"UNSEEN_OPTIONS=(.*)"', unit)[1]))]
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    commands.append(("unseen.env", shlex.split(re.search(r"^UNSEEN_OPTIONS=(.*)$", page, re.MULTILINE)[1])))
    image = DOCKERFILE.read_text(encoding="utf-8")
    entrypoint = json.loads(re.search(r"^ENTRYPOINT (\[.*\])", image, re.MULTILINE)[1])
    fixed = entrypoint[entrypoint.index("engine.run") + 1 :]
    commands.append(("Dockerfile", fixed + json.loads(re.search(r"^CMD (\[.*\])", image, re.MULTILINE)[1])))
    for path in (DOCKERFILE, *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"):
        for line in logical_lines(path):
            line = re.split(r"  #| [&|;]", line)[0].strip()
            if (found := re.search(r"python -m engine\.run( .*)", line)) and "$" not in line and "`" not in line:
                commands.append((path.name, shlex.split(found[1])))
            if found := re.match(r"docker run .* unseen (.*)", line):
                commands.append((path.name, fixed + shlex.split(found[1])))
    return commands


def test_there_are_commands_to_check():
    assert {"unseen.service", "unseen.env", "Dockerfile", "deploy.md", "control.md"} <= {
        w for w, _ in engine_commands()
    }


@pytest.mark.parametrize(("where", "arguments"), engine_commands())
def test_every_engine_option_exists_and_its_endpoints_are_allowed(where, arguments, tmp_path):
    options = parse_arguments(arguments)
    if options.keys is not None:
        options.keys = tmp_path / "keys"
        keys.create(options.keys)
    check(options)


def test_every_control_command_exists():
    commands = [
        shlex.split(line.partition("python -m streaming.control ")[2])
        for line in logical_lines(ROOT / "docs" / "control.md")
        if line.startswith("python -m streaming.control ")
    ]
    assert len(commands) >= 5
    for arguments in commands:
        control_parser().parse_args(arguments)


def test_the_keys_commands_work_as_written(tmp_path):
    commands = [
        shlex.split(line.split("  #")[0])
        for line in logical_lines(ROOT / "docs" / "control.md")
        if line.startswith("python -m streaming.keys ")
    ]
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command[1:]],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "keys" / "clients" / "viewer" / "data.secret").exists()


def test_the_image_asks_for_health_where_the_engine_answers():
    image = DOCKERFILE.read_text(encoding="utf-8")
    entrypoint = json.loads(re.search(r"^ENTRYPOINT (\[.*\])", image, re.MULTILINE)[1])
    host, port = parse_address(parse_arguments(entrypoint[3:]).metrics)
    assert f"http://{host}:{port}/healthz" in image
    assert re.search(r"^USER (?!root|0)", image, re.MULTILINE)


def test_the_image_contains_every_package_and_copies_nothing_that_is_missing():
    image = DOCKERFILE.read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)", image, re.MULTILINE) for word in line.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    found = re.search(r"include = (\[.*\])", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert {name.rstrip("*") for name in json.loads(found)} <= set(copied)
    allowed = {line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()}
    assert set(copied) <= allowed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_valid(tmp_path):
    unit = tmp_path / "unseen.service"
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/unseen/bin/python" in text
    unit.write_text(text.replace("/opt/unseen/bin/python", sys.executable), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
