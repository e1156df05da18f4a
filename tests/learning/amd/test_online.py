"""Online learning: what is good goes to the engine, what is poison does not."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("pycocotools")

from engine.perceive.background import BackgroundNetwork, UniformBackground  # noqa: E402
from engine.registry import Registry  # noqa: E402
from learning.amd import export as command  # noqa: E402
from learning.amd import online  # noqa: E402
from learning.amd.checkpoint import model_content  # noqa: E402
from learning.amd.export import BackgroundMap, export  # noqa: E402
from learning.amd.gate import PairBuffer, defect, judge  # noqa: E402
from learning.amd.online import OnlineLearner, OnlineSettings, StoreFeed, Throttle, follow_store  # noqa: E402
from learning.networks.amd import Amd, AmdConfig  # noqa: E402
from streaming.background_watch import WatchedBackground  # noqa: E402
from tests.learning.amd.scenes import channels_first, moving_square  # noqa: E402
from tests.learning.stored import add_frame, create  # noqa: E402

SMALL = AmdConfig(segments=3, head=8, pyramid=(8, 8, 8), motion=8, readout=16)
QUICK = OnlineSettings(steps=15, batch=2, rate=2e-3, decay=0.8, min_pairs=12, patience=3, share=1.0)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Amd:
    torch.manual_seed(0)
    return Amd(SMALL).eval()


def _noise(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 64, 128, 3), np.uint8)


def _poison() -> dict[str, np.ndarray]:
    """Streams that teach nothing true, uint8 [N, 64, 128, 3] RGB."""
    loop = moving_square(4)
    return {
        "noise": _noise(90),
        "black": np.zeros((90, 64, 128, 3), np.uint8),
        "one frame again and again": np.repeat(moving_square(1), 90, axis=0),
        "four frames in a loop": np.concatenate([loop] * 23),
        "a grainy standstill": np.clip(
            moving_square(1).astype(int) + RNG.normal(0, 12, (90, 64, 128, 3)), 0, 255
        ).astype(np.uint8),
    }


def _stored(frame: np.ndarray) -> np.ndarray:
    """A small RGB frame as the store has it, BGR at its size."""
    return cv2.resize(np.ascontiguousarray(frame[..., ::-1]), (448, 256), interpolation=cv2.INTER_NEAREST)


def _store(path: Path, frames: np.ndarray) -> Path:
    connection = create(path)
    for number, frame in enumerate(frames):
        add_frame(connection, 5 * number, number * 10**9, (None, _stored(frame)), [])
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize("name", list(_poison()))
def test_a_poisoned_stream_never_reaches_the_registry(name: str, network: Amd, tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db", _poison()[name])
    learner = OnlineLearner(network, QUICK)
    registry = Registry(tmp_path / "registry")
    assert follow_store(learner, store, registry, every_s=0.01, rounds=3, idle_timeout_s=0.05) == 0
    assert registry.current() is None
    assert sum(learner.teach.refused.values()) > 0


def test_a_stream_worth_learning_is_promoted_placed_and_taken_over(network: Amd, tmp_path: Path) -> None:
    frames = np.concatenate([moving_square(8, seed=seed, step_px=3 + seed % 3) for seed in range(12)])
    store = _store(tmp_path / "store.db", frames)
    registry = Registry(tmp_path / "registry")
    watched = WatchedBackground(registry, UniformBackground())
    picture, grid = np.ascontiguousarray(frames[0][..., ::-1]), (16, 32)
    assert (watched.map(picture, None, grid) == 0.5).all()
    # From random weights, so few steps only get nearer to what standing still would explain.
    learner = OnlineLearner(network, dataclasses.replace(QUICK, steps=45, min_explained=-10.0))
    assert follow_store(learner, store, registry, every_s=0.01, rounds=1) == 1
    current = registry.current()
    assert current is not None
    assert current.manifest["online"]["gain"] > 0
    watched.look()
    assert watched.version is not None
    assert watched.version.name == current.name
    assert watched.map(picture, None, grid).std() > 0


def test_a_broken_version_leaves_the_cue_as_it_is(network: Amd, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    export(network, 1, tmp_path / "a.onnx", "test")
    version = registry.place(tmp_path / "a.onnx", {})
    version.path.write_bytes(b"half a file")
    watched = WatchedBackground(registry, UniformBackground())
    assert watched.version is None
    assert (watched.map(np.zeros((64, 128, 3), np.uint8), None, (4, 4)) == 0.5).all()


def test_the_exported_map_is_one_minus_the_objects_segment(network: Amd, tmp_path: Path) -> None:
    assert export(network, 2, tmp_path / "amd.onnx", "test") < 1e-3
    frame = moving_square(1)[0]
    found = BackgroundNetwork(tmp_path / "amd.onnx").map(np.ascontiguousarray(frame[..., ::-1]), None, (16, 32))
    with torch.no_grad():
        soft = network.masks(torch.from_numpy(channels_first(frame[None])).float() / 255)
    np.testing.assert_allclose(found, 1 - soft[0, 2].numpy(), atol=1e-3)
    torch.save(model_content(network, 2, {"step": 1}), tmp_path / "model.pt")
    assert command.main([str(tmp_path / "model.pt"), "--out", str(tmp_path / "b.onnx")]) == 0
    assert command.main([str(tmp_path / "none.pt"), "--out", str(tmp_path / "c.onnx")]) == 4
    assert not (tmp_path / "c.onnx").exists()
    assert isinstance(BackgroundMap(network, 0), torch.nn.Module)


def test_why_a_pair_is_of_no_use() -> None:
    frames = channels_first(moving_square(2))
    assert defect(frames) is None
    assert defect(frames[[0, 0]]) == "still"
    grainy = np.clip(frames[[0, 0]] + RNG.normal(0, 25, frames.shape), 0, 255).astype(np.uint8)
    assert defect(grainy) == "still"
    assert defect(np.zeros_like(frames)) == "blank"
    assert defect(channels_first(_noise(2))) is not None
    assert defect(np.stack([frames[0], 255 - frames[0]])) in ("noise", "cut")
    buffer = PairBuffer(2)
    assert buffer.add(frames)
    assert not buffer.add(frames)
    assert buffer.refused == {"repeated": 1}
    for seed in (5, 6):
        assert buffer.add(channels_first(moving_square(2, seed)))
    assert len(buffer) == 2


def test_the_verdict_wants_a_fall_beyond_chance() -> None:
    running, unmoved = np.linspace(0.08, 0.12, 20), np.full(20, 0.2)
    assert judge(running, running * 0.97, unmoved).promote
    assert not judge(running, running * 0.999, unmoved).promote
    spread = running * (1 + 0.2 * (-1.0) ** np.arange(20) - 0.01)
    assert "chance" in judge(running, spread, unmoved).reason
    assert "unmoved" in judge(running, running * 0.9, running * 0.8).reason
    assert "unmoved" in judge(running, running * 0.9, running * 0.905).reason
    assert "finite" in judge(running, np.where(np.arange(20) == 3, np.nan, 0.01), unmoved).reason


def test_a_store_is_read_once_and_gaps_make_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert StoreFeed(path, 10).read() == []
    connection = create(path)
    frames = moving_square(5)
    for number, frame in zip((0, 5, 40, 45, 50), frames, strict=True):
        add_frame(connection, number, number * 10**9, (None, _stored(frame)), [])
    connection.commit()
    feed = StoreFeed(path, 10)
    pairs = feed.read()
    assert len(pairs) == 3
    assert pairs[0].shape == (2, 3, 64, 128)
    assert feed.read() == []
    add_frame(connection, 55, 55 * 10**9, (None, _stored(frames[0])), [])
    connection.commit()
    assert len(feed.read()) == 1
    connection.close()


def test_work_is_followed_by_rest_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("learning.amd.online.time.sleep", slept.append)
    Throttle(0.25)(0.2)
    assert slept == [pytest.approx(0.6)]


def test_the_rule_is_the_one_the_base_was_made_with(
    network: Amd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("learning.amd.online._make_room_for_others", lambda: None)
    monkeypatch.setattr("learning.amd.online.follow_store", lambda learner, *_: seen.append(learner.settings.channel))
    torch.save(model_content(network, 1, {"channel_rule": "relative"}), tmp_path / "base.pt")
    arguments = ["--store", "none.db", "--registry", str(tmp_path / "registry"), "--base", str(tmp_path / "base.pt")]
    assert online.main(arguments) == 0
    assert online.main([*arguments, "--channel", "flow"]) == 0
    assert seen == ["relative", "flow"]
    assert online.main([*arguments, "--channel", "luck"]) == 2
