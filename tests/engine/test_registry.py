"""The registry: what is current is always whole, whoever writes and whoever dies while writing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import ModelError, StoreError, UsageError
from engine.registry import Registry, Version
from engine.registry.__main__ import main

pytest.importorskip("onnx")
from tests.swappable import variant, with_constant

PLACER = """
import sys
from pathlib import Path
from engine.registry import Registry
registry, work, name = Registry(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for count in range(int(sys.argv[4])):
    file = work / f"{name}.bin"
    file.write_bytes(f"{name} {count} ".encode() * 100_000)
    registry.place(file, {"by": name}, check=lambda path: None)
"""


def unchecked(path: Path) -> None:
    """For files that only the registry looks at."""


def content(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def filled(registry: Registry, tmp_path: Path, count: int) -> list[Version]:
    return [registry.place(content(tmp_path / "m", f"model {i}"), {}, check=unchecked) for i in range(count)]


def test_a_placed_model_is_current_whole_and_described(registry: Registry, tmp_path: Path) -> None:
    assert registry.current() is None
    file = variant(tmp_path / "a.onnx", 1)
    first = registry.place(file, {"training": {"steps": 10}, "metrics": {"AP": 0.4}})
    assert registry.current() == first
    assert first.name == f"000001-{first.hash}"
    assert first.path.read_bytes() == file.read_bytes()
    manifest = json.loads((first.path.parent / "manifest.json").read_text())
    assert manifest["hash"].startswith(first.hash)
    assert manifest["size"] == file.stat().st_size
    assert (manifest["contract"], manifest["parent"], manifest["metrics"]) == ("1", None, {"AP": 0.4})
    second = registry.place(variant(tmp_path / "b.onnx", 2), {})
    assert second.manifest["parent"] == first.name
    assert [v.number for v in registry.versions()] == [1, 2]
    assert registry.current() == second
    registry.verify(first)


def test_what_is_current_is_not_placed_again_but_what_was_may_be(registry: Registry, tmp_path: Path) -> None:
    first, second = filled(registry, tmp_path, 2)
    again = registry.place(content(tmp_path / "m", "model 1"), {}, check=unchecked)
    assert again == second
    third = registry.place(content(tmp_path / "m", "model 0"), {}, check=unchecked)
    assert (third.number, third.hash) == (3, first.hash)


@pytest.mark.parametrize("kind", ["absent", "truncated", "contract", "infinite", "text"])
def test_a_model_that_cannot_run_is_not_placed(registry: Registry, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "bad.onnx"
    if kind == "contract":
        variant(file, 0, {"contract": "2"})
    elif kind == "infinite":
        with_constant(file, "slope", float("nan"))
    elif kind == "truncated":
        whole = variant(file, 0).read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        file.write_text("not a model")
    with pytest.raises(ModelError) as error:
        registry.place(file, {})
    assert "\n" not in str(error.value)
    assert registry.current() is None
    assert registry.versions() == []
    assert not registry.folder.exists() or not list((registry.folder / "models").iterdir())


def test_a_manifest_must_fit_the_file_and_json(registry: Registry, tmp_path: Path) -> None:
    file = content(tmp_path / "m", "model")
    for wrong in ({"hash": "0" * 64}, {"size": 3}):
        with pytest.raises(ModelError, match="the manifest given says"):
            registry.place(file, wrong, check=unchecked)
    for strange in ({"metrics": float("nan")}, {"net": object()}):
        with pytest.raises(UsageError, match="manifest"):
            registry.place(file, strange, check=unchecked)
    version = registry.place(file, {"size": 5}, check=unchecked)
    with pytest.raises(ModelError):  # the true hash of another file
        registry.place(content(tmp_path / "n", "other"), {"hash": version.manifest["hash"]}, check=unchecked)


def test_rolled_back_is_never_chosen_again(registry: Registry, tmp_path: Path) -> None:
    first, second, third = filled(registry, tmp_path, 3)
    assert registry.rollback(reason="masks everywhere") == second
    assert registry.current() == second
    assert registry.withdrawn() == {third.name: "masks everywhere"}
    with pytest.raises(ModelError, match="masks everywhere"):
        registry.place(content(tmp_path / "m", "model 2"), {}, check=unchecked)
    fourth = registry.place(content(tmp_path / "m", "model 3"), {}, check=unchecked)
    assert fourth.number == 4
    # Two who saw the same fault go back once.
    assert registry.rollback(fourth) == second
    assert registry.rollback(fourth) == second
    assert registry.rollback() == first
    assert registry.rollback() is None
    assert registry.current() is None
    with pytest.raises(ModelError, match="nothing to roll back"):
        registry.rollback()
    # Numbers go on after everything is deleted.
    registry.gc(1)
    assert registry.place(content(tmp_path / "m", "model 9"), {}, check=unchecked).number == 5


def test_rollback_passes_over_damaged_versions(registry: Registry, tmp_path: Path) -> None:
    first, second, _ = filled(registry, tmp_path, 3)
    second.path.write_bytes(b"model X")
    assert registry.rollback() == first


def test_a_rollback_killed_half_way_still_holds(registry: Registry, tmp_path: Path) -> None:
    first, second = filled(registry, tmp_path, 2)
    (registry.folder / "withdrawn.json").write_text(json.dumps({second.name: "killed before CURRENT was replaced"}))
    assert registry.current() == first


def test_damage_is_found(registry: Registry, tmp_path: Path) -> None:
    whole = "model " * 1000
    for damage in ("truncated", "bit", "missing", "manifest", "manifest cut"):
        version = registry.place(content(tmp_path / "m", whole + damage), {}, check=unchecked)
        manifest = version.path.parent / "manifest.json"
        if damage == "truncated":
            os.truncate(version.path, 100)
        elif damage == "bit":
            data = bytearray(version.path.read_bytes())
            data[77] ^= 1
            version.path.write_bytes(data)
        elif damage == "missing":
            version.path.unlink()
        elif damage == "manifest":
            manifest.write_text(json.dumps({**version.manifest, "hash": "f" * 64}))
        else:
            manifest.write_text(manifest.read_text()[:30])
        with pytest.raises(ModelError, match=version.name):
            registry.verify(registry.current())
    # The same content again, over the damaged version, is a new and whole one.
    registry.verify(registry.place(content(tmp_path / "m", whole + "missing"), {}, check=unchecked))


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "000009-0123456789ab", "000001", "\x00" * 40])
def test_a_strange_pointer_is_one_line(registry: Registry, tmp_path: Path, text: str) -> None:
    filled(registry, tmp_path, 1)
    registry.pointer.write_text(text)
    with pytest.raises(ModelError) as error:
        registry.current()
    assert "\n" not in str(error.value)


def test_gc_keeps_the_newest_the_current_one_and_the_way_back(registry: Registry, tmp_path: Path) -> None:
    versions = filled(registry, tmp_path, 6)
    registry.rollback()
    leftover = registry.folder / "models" / ".incoming-killed"
    leftover.mkdir()
    os.utime(leftover, (0, 0))
    removed = registry.gc(1)
    assert removed == [v.name for v in (*versions[:3], versions[5])]
    assert [v.number for v in registry.versions()] == [4, 5]
    assert not leftover.exists()
    assert registry.rollback() == versions[3]
    with pytest.raises(ModelError, match="withdrawn"):
        registry.place(content(tmp_path / "m", "model 5"), {}, check=unchecked)
    with pytest.raises(UsageError):
        registry.gc(0)


def test_placers_at_the_same_time_and_readers_see_only_whole_versions(registry: Registry, tmp_path: Path) -> None:
    each, names = 8, ("a", "b", "c")
    placers = [
        subprocess.Popen(
            [sys.executable, "-c", PLACER, str(registry.folder), str(tmp_path), name, str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for placer in placers:
        assert placer.stdout.readline() == "ready\n"
    for placer in placers:
        placer.stdin.write("\n")
        placer.stdin.flush()
    looks, seen = 0, set()
    while any(placer.poll() is None for placer in placers):
        if (current := registry.current()) is not None:
            registry.verify(current)
            seen.add(current.number)
            looks += 1
    for placer in placers:
        placer.communicate()
        assert placer.returncode == 0
    assert looks
    versions = registry.versions()
    assert [v.number for v in versions] == list(range(1, each * len(names) + 1))
    assert registry.current() == versions[-1]
    for version in versions:
        registry.verify(version)


def test_killed_while_placing_nothing_half_is_ever_current(registry: Registry, tmp_path: Path) -> None:
    rng = random.Random(0)
    for turn in range(5):
        placer = subprocess.Popen(
            [sys.executable, "-c", PLACER, str(registry.folder), str(tmp_path), f"k{turn}", "100000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert placer.stdout.readline() == "ready\n"
        before = len(registry.versions())
        placer.stdin.write("\n")
        placer.stdin.flush()
        give_up = time.monotonic() + 60
        while len(registry.versions()) < before + 1 + turn:
            assert time.monotonic() < give_up
        time.sleep(rng.uniform(0, 0.02))
        placer.send_signal(signal.SIGKILL)
        placer.communicate()
        registry.verify(registry.current())
        for version in registry.versions():
            registry.verify(version)
    # The lock went with its holder.
    last = registry.place(content(tmp_path / "m", "after all"), {}, check=unchecked)
    assert registry.current() == last


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="registry"):
        Registry(tmp_path / "file").place(content(tmp_path / "m", "model"), {}, check=unchecked)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "registry")
    assert main(["list", folder]) == 2
    one, two = variant(tmp_path / "1.onnx", 1), variant(tmp_path / "2.onnx", 2)
    (tmp_path / "manifest.json").write_text(json.dumps({"metrics": {"AP": 0.5}}))
    assert main(["place", folder, str(one), "--manifest", str(tmp_path / "manifest.json")]) == 0
    assert main(["place", folder, str(two)]) == 0
    assert main(["verify", folder]) == 0
    capsys.readouterr()
    assert main(["list", folder, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["", "current"]
    assert rows[0]["manifest"]["metrics"] == {"AP": 0.5}
    assert main(["rollback", folder]) == 0
    assert main(["list", folder]) == 0
    assert "withdrawn" in capsys.readouterr().out
    assert main(["place", folder, str(two)]) == 4
    assert main(["gc", folder, "--keep", "0"]) == 2
    assert main(["gc", folder]) == 0
    Registry(Path(folder)).current().path.write_bytes(b"")
    assert main(["verify", folder, "1"]) == 4
    assert main(["verify", folder, "7"]) == 4
    assert main(["place", folder, str(tmp_path / "absent.onnx")]) == 4
    assert main(["fly", folder]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert all(line.startswith("error: ") for line in errors.splitlines())
