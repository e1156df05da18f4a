"""A model goes out to every robot complete, or not at all; and it is taken back the same way."""

import json
from pathlib import Path

import fsspec
import pytest

pytest.importorskip("onnx", reason="builds model files")

from engine.errors import ModelError
from engine.registry import Registry
from learning.fleet import __main__ as command
from learning.fleet.exchange import publish, pull, pull_once
from tests import models


@pytest.fixture
def made(tmp_path: Path) -> list[Path]:
    return [models.motion_model(tmp_path / f"m{i}.onnx", {"training": str(i)}) for i in range(2)]


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path):
    """A place that is a folder, and one that is not."""
    if request.param == "folder":
        yield (tmp_path / "share").as_uri()
    else:
        yield "memory://share"
        fs = fsspec.filesystem("memory")
        if fs.exists("/share"):
            fs.rm("/share", recursive=True)


def test_robots_follow_what_is_published_and_what_is_withdrawn(made: list[Path], url: str, tmp_path: Path) -> None:
    home, robot = Registry(tmp_path / "home"), Registry(tmp_path / "robot")
    assert pull(url, robot) == ("unchanged", None)
    first = home.place(made[0], {"metrics": {"gain": 0.1}})
    publish(home, url)
    done, placed = pull(url, robot)
    assert (done, placed.hash, placed.manifest["metrics"]) == ("placed", first.hash, {"gain": 0.1})
    assert placed.path.read_bytes() == made[0].read_bytes()
    assert placed.manifest["published"] == {"url": url, "version": first.name}
    assert pull(url, robot) == ("unchanged", placed)
    second = home.place(made[1], {})
    publish(home, url)
    assert pull(url, robot)[1].hash == second.hash == robot.current().hash
    home.rollback(reason="masks of the whole sky")
    publish(home, url)
    done, after = pull(url, robot)
    assert (done, after.hash) == ("rolled back", first.hash)
    assert "masks of the whole sky" in next(iter(robot.withdrawn().values()))


def test_a_robot_that_withdrew_a_model_does_not_take_it_again(made: list[Path], url: str, tmp_path: Path) -> None:
    home, robot = Registry(tmp_path / "home"), Registry(tmp_path / "robot")
    home.place(made[0], {})
    publish(home, url)
    pull(url, robot)
    robot.rollback(reason="bad here")
    assert pull(url, robot) == ("refused here", None)
    assert robot.current() is None


def test_a_broken_transfer_changes_nothing(made: list[Path], url: str, tmp_path: Path, caplog) -> None:
    home, robot = Registry(tmp_path / "home"), Registry(tmp_path / "robot")
    home.place(made[0], {})
    publish(home, url)
    _, kept = pull(url, robot)
    version = home.place(made[1], {})
    publish(home, url)
    fs, root = fsspec.core.url_to_fs(url)
    file = f"{root}/models/{version.name}/model.onnx"
    whole = fs.cat_file(file)
    fs.pipe_file(file, whole[:-100])
    with pytest.raises(ModelError, match=f"expected {version.hash}; not placed|expected {version.hash} and"):
        pull(url, robot)
    assert not pull_once(url, robot)
    assert "the model stays" in caplog.text
    fs.pipe_file(f"{root}/models/{version.name}/manifest.json", b"{}")
    with pytest.raises(ModelError, match="missing or damaged"):
        pull(url, robot)
    fs.pipe_file(f"{root}/CURRENT", b"../../etc")
    with pytest.raises(ModelError, match="expected a version"):
        pull(url, robot)
    assert robot.current() == kept
    assert len(robot.versions()) == 1


def test_the_commands_say_what_they_did(made: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, robot, url = tmp_path / "home", tmp_path / "robot", (tmp_path / "share").as_uri()
    assert command.main(["publish", str(home), url]) == 4
    assert "nothing to publish" in capsys.readouterr().err
    version = Registry(home).place(made[0], {})
    assert command.main(["publish", str(home), url]) == 0
    assert f"{version.name} is current" in capsys.readouterr().out
    assert json.loads((tmp_path / "share" / "withdrawn.json").read_text()) == {}
    assert command.main(["pull", url, str(robot)]) == 0
    assert "placed, 000001-" in capsys.readouterr().out
    assert command.main(["pull", url, str(robot), "--every", "0"]) == 2
    assert command.main(["pull", "nosuch://x", str(robot)]) == 2
    assert Registry(tmp_path / "share").current().name == version.name
