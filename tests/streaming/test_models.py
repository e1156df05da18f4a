"""The watch on a registry: what is new and good runs, what is bad is refused once, and there is a way back."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.errors import EngineError, ModelError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.registry import Registry
from engine.registry.check import try_out
from engine.registry.files import replace_text
from streaming.feed import Feed
from streaming.lane import Lane
from streaming.loaded import first_model, load_beside, load_verified, open_registry
from streaming.models import ModelWatch
from streaming.report import Report
from streaming.session import Session
from streaming.sources.base import Source

pytest.importorskip("onnx")
from tests.streaming.scenes import eventually
from tests.swappable import blind_to_blank_frames, variant, with_constant

TIMEOUT_S = 60


class Engine:
    """Notes which models it is told to run."""

    def __init__(self) -> None:
        self.networks: list[Network] = []
        self.over = False

    def swap_model(self, network: Network) -> int:
        if self.over:
            raise EngineError("the engine has ended")
        self.networks.append(network)
        network.generation = 1 + len(self.networks)
        return network.generation

    def fall_back(self, choose: object) -> None: ...

    @property
    def names(self) -> list[str]:
        return [network.name for network in self.networks]


class Loader:
    """Loads as the engine does, and counts."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.hold: threading.Event | None = None

    def __call__(self, path: Path) -> Network:
        self.paths.append(path)
        network = Network(path, backend="onnxruntime", threads=1)
        try_out(network)
        if self.hold is not None:
            assert self.hold.wait(TIMEOUT_S)
        return network


@contextmanager
def watching(registry: Registry, base: Path) -> Iterator[tuple[ModelWatch, Engine, Loader]]:
    engine, load = Engine(), Loader()
    running, refused = first_model(registry, load, base)
    with ModelWatch(registry, load, engine, running=running, base=base, refused=refused, poll_s=0.02) as watch:
        yield watch, engine, load


def runs(watch: ModelWatch, name: str | None) -> Callable[[], bool]:
    return lambda: watch.running.name == name


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry").mkdir()
    return Registry(tmp_path / "registry")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[object], Path]:
    return lambda mark: variant(tmp_path / f"{mark}.onnx", mark)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == "unseen.models"]
    return [line for line in lines if "refused" in line]


def test_a_new_version_runs_and_each_swap_is_one_generation(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    with watching(registry, motion_model) as (watch, engine, _):
        assert (watch.running.name, watch.generation) == (None, 1)
        for generation in (2, 3):
            version = registry.place(make(generation), {})
            assert eventually(runs(watch, version.name), TIMEOUT_S)
            assert watch.generation == generation
        assert engine.names == [v.name for v in registry.versions()]
        assert [network.hash for network in engine.networks] == [v.hash for v in registry.versions()]


def test_the_start_is_the_current_version(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    version = registry.place(make(1), {})
    with watching(registry, motion_model) as (watch, engine, load):
        assert watch.running.name == version.name == watch.running.network.name
        assert watch.reload() == 1
        assert load.paths == [version.path]
        assert not engine.networks


def break_truncated(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def break_hash(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def break_missing(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder)


def break_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text("{")


def nothing(folder: Path, tmp_path: Path) -> None: ...


def as_is(path: Path) -> Path:
    return variant(path, "as is")


def other_contract(path: Path) -> Path:
    return variant(path, "contract", {"contract": "2"})


def not_finite(path: Path) -> Path:
    return with_constant(path, "slope", float("nan"))


def not_a_model(path: Path) -> Path:
    path.write_text("not a model")
    return path


@pytest.mark.parametrize(
    ("model", "damage"),
    [
        (as_is, break_truncated),
        (as_is, break_hash),
        (as_is, break_missing),
        (as_is, break_manifest),
        (other_contract, nothing),
        (not_finite, nothing),
        (not_a_model, nothing),
    ],
)
def test_a_bad_model_is_refused_with_one_line_and_the_old_one_stays(
    registry: Registry,
    motion_model: Path,
    make: Callable[[object], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    model: Callable[[Path], Path],
    damage: Callable[[Path, Path], None],
) -> None:
    good = registry.place(make("good"), {})
    with watching(registry, motion_model) as (watch, engine, _):
        # Placed by something that does not check: a copy with another tool, an older version of this one.
        bad = Registry(tmp_path / "elsewhere").place(model(tmp_path / "bad.onnx"), {}, check=lambda path: None)
        target = registry.folder / "models" / f"000002-{bad.hash}"
        shutil.copytree(bad.path.parent, target)
        damage(target, tmp_path)
        replace_text(registry.pointer, target.name)
        assert eventually(lambda: bool(refusals(caplog)), TIMEOUT_S)
        with pytest.raises(ModelError):
            watch.reload()
        replace_text(registry.pointer, target.name)  # touched: looked at again
        assert watch.running.name == good.name
        assert not engine.networks
        # The next good one runs.
        following = registry.place(make("following"), {})
        assert eventually(runs(watch, following.name), TIMEOUT_S)
        assert watch.generation == 2
    assert len(refusals(caplog)) == 1
    assert good.name in refusals(caplog)[0]
    assert "\n" not in refusals(caplog)[0]


def test_a_model_that_arrives_slowly_runs_once_it_is_complete(
    registry: Registry, motion_model: Path, make: Callable[[object], Path], tmp_path: Path
) -> None:
    version = Registry(tmp_path / "elsewhere").place(make("slow"), {})
    content, manifest = version.path.read_bytes(), (version.path.parent / "manifest.json").read_bytes()
    with watching(registry, motion_model) as (watch, engine, _):
        target = registry.folder / "models" / version.name
        target.mkdir(parents=True)
        replace_text(registry.pointer, version.name)
        for part in range(1, 5):
            (target / "model.onnx").write_bytes(content[: len(content) * part // 4])
            with pytest.raises(ModelError):
                watch.reload()
            assert not engine.networks
        (target / "manifest.json").write_bytes(manifest)
        assert eventually(runs(watch, version.name), TIMEOUT_S)
        assert watch.generation == 2


def test_rollback_needs_no_loading_and_is_remembered(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    first = registry.place(make(1), {})
    with watching(registry, motion_model) as (watch, engine, load):
        second = registry.place(make(2), {})
        assert eventually(runs(watch, second.name), TIMEOUT_S)
        loaded = len(load.paths)
        assert watch.rollback() == 3
        assert watch.running.name == first.name
        assert len(load.paths) == loaded
        assert registry.current() == first
        assert list(registry.withdrawn()) == [second.name]
        # The pointer changed by that: nothing further may come of it.
        assert watch.reload() == 3
        assert engine.names == [second.name, first.name]
        # Even a pointer bent back by hand does not bring it back.
        replace_text(registry.pointer, second.name)
        assert watch.reload() == 3
        # One more step goes back to what the engine would start with on an empty registry.
        replace_text(registry.pointer, first.name)
        assert watch.rollback() == 4
        assert watch.running.name is None
        assert watch.running.network.hash == Network(motion_model).hash
        with pytest.raises(ModelError, match="nothing is before it"):
            watch.rollback()


def test_a_rollback_elsewhere_is_followed_from_memory(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    first = registry.place(make(1), {})
    with watching(registry, motion_model) as (watch, _, load):
        second = registry.place(make(2), {})
        assert eventually(runs(watch, second.name), TIMEOUT_S)
        loaded = len(load.paths)
        registry.rollback()
        assert eventually(runs(watch, first.name), TIMEOUT_S)
        assert len(load.paths) == loaded
        assert watch.generation == 3
        # The withdrawn one is no way back.
        assert watch.rollback() == 4
        assert watch.running.name is None


def test_a_rollback_does_not_wait_for_a_model_being_loaded(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    first = registry.place(make(1), {})
    with watching(registry, motion_model) as (watch, engine, load):
        second = registry.place(make(2), {})
        assert eventually(runs(watch, second.name), TIMEOUT_S)
        load.hold = threading.Event()
        third = registry.place(make(3), {})
        assert eventually(lambda: third.path in load.paths, TIMEOUT_S)
        assert watch.rollback() == 3
        assert watch.running.name == first.name
        load.hold.set()
        # Only the second was withdrawn; the third is still what the registry wants.
        assert eventually(runs(watch, third.name), TIMEOUT_S)
        assert engine.names == [second.name, first.name, third.name]
        assert list(registry.withdrawn()) == [second.name]


def test_an_engine_starts_with_the_newest_version_that_works(
    registry: Registry, motion_model: Path, make: Callable[[object], Path], caplog: pytest.LogCaptureFixture
) -> None:
    versions = [registry.place(make(i), {}) for i in range(3)]
    break_truncated(versions[2].path.parent, registry.folder)
    with watching(registry, motion_model) as (watch, _, _):
        assert watch.running.name == versions[1].name
        with pytest.raises(ModelError, match=versions[2].name):
            watch.reload()
    for version in versions:
        (version.path.parent / "manifest.json").write_text(json.dumps({}))
    with watching(registry, motion_model) as (watch, _, _):
        assert watch.running.name is None
    assert len([line for line in refusals(caplog) if "truncated" in line]) == 1


def test_an_engine_that_has_ended_takes_nothing(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    with watching(registry, motion_model) as (watch, engine, _):
        engine.over = True
        registry.place(make(1), {})
        with pytest.raises(EngineError, match="has ended"):
            watch.reload()
        assert (watch.running.name, watch.generation) == (None, 1)


def test_a_swap_that_failed_for_want_of_time_is_tried_again(
    registry: Registry, motion_model: Path, make: Callable[[object], Path]
) -> None:
    with watching(registry, motion_model) as (watch, engine, load):
        engine.over = True
        version = registry.place(make(1), {})
        assert eventually(lambda: len(load.paths) >= 2, TIMEOUT_S)
        engine.over = False
        assert eventually(runs(watch, version.name), TIMEOUT_S)
        assert watch.generation == 2


def test_a_mistyped_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--models"):
        open_registry(tmp_path / "absent")
    assert open_registry(tmp_path).current() is None


class Scenery(Source):
    """Moving texture, then black once told so, live."""

    live = True

    def __init__(self) -> None:
        super().__init__("test://", "cam")
        self.black = threading.Event()
        self._index = -1
        self._texture = np.random.default_rng(0).integers(0, 256, (120, 1200, 3), np.uint8)

    def read(self) -> Frame | None:
        time.sleep(0.02)
        self._index += 1
        x = 4 * self._index % 900
        image = np.ascontiguousarray(self._texture[:, x : x + 214])
        return Frame(image * 0 if self.black.is_set() else image, self._index, time.time_ns(), self.name)

    def close(self) -> None: ...


def test_a_model_that_fails_while_running_is_rolled_back_and_no_frame_is_lost(
    registry: Registry, motion_model: Path, make: Callable[[object], Path], tmp_path: Path
) -> None:
    first = registry.place(make(1), {})
    load, source, scenes = Loader(), Scenery(), []
    running, refused = first_model(registry, load, motion_model)
    lane = Lane(Feed(source, every=True), Pipeline(EngineConfig(), running.network))
    session = Session([lane], Report({"generation": 1}))
    session.observe(lambda done: scenes.extend(done.scenes))
    thread = threading.Thread(target=session.run)
    with ModelWatch(registry, load, session, running=running, base=motion_model, refused=refused) as watch:
        thread.start()
        bad = registry.place(blind_to_blank_frames(tmp_path / "bad.onnx"), {})
        assert eventually(runs(watch, bad.name), TIMEOUT_S)
        assert watch.generation == 2
        source.black.set()
        assert eventually(runs(watch, first.name), TIMEOUT_S)
        assert eventually(lambda: watch.generation == 3, TIMEOUT_S)
        assert eventually(lambda: list(registry.withdrawn()) == [bad.name], TIMEOUT_S)
        frames = lane.frames
        assert eventually(lambda: lane.frames > frames + 3, TIMEOUT_S)
        assert watch.reload() == 3
        session.stop()
        thread.join(TIMEOUT_S)
    assert registry.current() == first
    assert "not finite" in registry.withdrawn()[bad.name]
    assert set(lane.feed.dropped) <= {"stopped", "queue_full"}
    assert lane.feed.captured == lane.frames + sum(lane.feed.dropped.values())


class Camera:
    """A session with one source whose newest frame is black."""

    def sources(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="cam"), SimpleNamespace(name="not there yet")]

    def snapshot(self, source: str) -> tuple[Frame, None]:
        if source != "cam":
            raise UsageError(f"source '{source}' has no frame yet")
        return Frame(np.zeros((120, 160, 3), np.uint8), 0, 0, source), None


def test_a_model_that_fails_on_what_the_cameras_see_is_refused(tmp_path: Path, motion_model: Path) -> None:
    def load(path: Path) -> Network:
        return Network(path, backend="onnxruntime", threads=1)

    assert load_beside(Camera(), load, motion_model, 0).hash == Network(motion_model).hash
    picky = blind_to_blank_frames(tmp_path / "picky.onnx")
    try_out(load(picky))
    with pytest.raises(ModelError, match="not finite"):
        load_beside(Camera(), load, picky, 0)
    # What fails on everything is found where no source has a frame yet.
    with pytest.raises(ModelError, match="not finite"):
        load_beside(SimpleNamespace(sources=list), load, with_constant(tmp_path / "nan.onnx", "slope", np.nan), 0)


def test_a_good_version_is_read_once(
    registry: Registry, motion_model: Path, make: Callable[[object], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.place(make(1), {})
    opened: list[Path] = []
    whole, block = Path.read_bytes, Path.open
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path), whole(path))[1])
    monkeypatch.setattr(
        Path, "open", lambda path, *more, **named: (opened.append(path), block(path, *more, **named))[1]
    )
    network = load_verified(registry, version, lambda path: Network(path, backend="onnxruntime", threads=1))
    assert network.hash == version.hash
    # `read_bytes` opens, so one reading shows up as two calls at most.
    assert sum(path == version.path for path in opened) <= 2
