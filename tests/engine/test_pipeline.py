"""The hot path as a whole: every frame gets one provisional and one final scene, in order."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig, apply
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.sources import open_source

FRAMES = 24


@pytest.fixture(scope="module")
def network(motion_model: Path) -> Network:
    return Network(motion_model)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with open_source(f"demo://?frames={FRAMES}&seed=5&size=240x428") as source:
        return list(source)


def run(network: Network, frames: list[Frame], **settings: object) -> list[Scene]:
    pipeline = Pipeline(apply(EngineConfig(), settings), network)
    scenes = [scene for frame in frames for scene in pipeline.step(frame)]
    return scenes + pipeline.flush()


def test_each_frame_is_published_once_per_kind_and_in_order(network: Network, frames: list[Frame]) -> None:
    scenes = run(network, frames)
    for kind in ("provisional", "final"):
        assert [s.frame_index for s in scenes if s.kind == kind] == list(range(FRAMES))
    assert any(s.objects for s in scenes)


def test_label_maps_and_objects_say_the_same(network: Network, frames: list[Frame]) -> None:
    for scene in run(network, frames):
        assert scene.labels.shape == frames[0].image.shape[:2]
        values = [item.label for item in scene.objects]
        assert sorted(set(np.unique(scene.labels)) - {0}) == values
        for item in scene.objects:
            y, x = np.nonzero(scene.labels == item.label)
            assert item.area == len(y)
            assert item.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert 0 <= item.score <= 1
            assert 0 <= item.novelty <= 1
            assert 0 <= item.foreground <= 1


def test_lag_zero_makes_finals_of_provisionals(network: Network, frames: list[Frame]) -> None:
    scenes = run(network, frames, **{"select.lag": 0})
    by_frame: dict[int, dict[str, Scene]] = {}
    for scene in scenes:
        by_frame.setdefault(scene.frame_index, {})[scene.kind] = scene
    for pair in by_frame.values():
        assert (pair["final"].labels == pair["provisional"].labels).all()
        assert pair["final"].commit.lag == 0


def test_finals_never_wait_longer_than_the_lag(network: Network, frames: list[Frame]) -> None:
    finals = [s for s in run(network, frames, **{"select.lag": 3}) if s.kind == "final"]
    assert max(s.commit.lag for s in finals) <= 3
    assert all(s.commit.loss_bound == 0 for s in finals if s.commit.exact)


@pytest.mark.parametrize("lag", [5, 0])
def test_a_cut_flushes_the_window_and_ids_are_not_reused(network: Network, frames: list[Frame], lag: int) -> None:
    other = [Frame(255 - f.image, f.index + FRAMES, f.t_capture_ns, f.source) for f in frames]
    pipeline = Pipeline(apply(EngineConfig(), {"select.lag": lag}), network)
    before = [s for f in frames for s in pipeline.step(f)]
    at_cut = pipeline.step(other[0])
    settled = {s.frame_index for s in before + at_cut if s.kind == "final"}
    assert set(range(FRAMES)) <= settled
    after = at_cut + [s for f in other[1:] for s in pipeline.step(f)] + pipeline.flush()
    old = {item.id for s in before + at_cut if s.frame_index < FRAMES for item in s.objects}
    new = {item.id for s in after if s.frame_index >= FRAMES for item in s.objects}
    assert old
    assert new
    assert not old & new


def test_another_image_size_is_another_shot(network: Network, frames: list[Frame]) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    for frame in frames[:6]:
        pipeline.step(frame)
    smaller = np.ascontiguousarray(frames[6].image[:200, :300])
    scenes = pipeline.step(Frame(smaller, 6, 0, "demo")) + pipeline.flush()
    assert {s.frame_index: s.labels.shape for s in scenes if s.kind == "final"}[6] == (200, 300)


def test_reset_publishes_what_was_undecided(network: Network, frames: list[Frame]) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    settled = [s.frame_index for f in frames[:8] for s in pipeline.step(f) if s.kind == "final"]
    settled += [s.frame_index for s in pipeline.reset()]
    assert settled == list(range(8))
    assert pipeline.flush() == []


def test_runs_are_repeatable(network: Network, frames: list[Frame]) -> None:
    first, second = run(network, frames), run(network, frames)
    assert [s.objects for s in first] == [s.objects for s in second]
    assert all((a.labels == b.labels).all() for a, b in zip(first, second, strict=True))


def test_warming_up_compiles_what_the_first_frames_would_wait_for(default_model: Path) -> None:
    # In a process of its own: here other tests may have compiled everything already.
    program = """
import sys
from pathlib import Path
from engine.config import EngineConfig
from engine.perceive.network import Network
from engine.pipeline import warm_up
from engine.prompts import affinity
from engine.seeds import similarity
from engine.select import flow_loss
warm_up(EngineConfig(), Network(Path(sys.argv[1])))
cold = [f.__name__ for f in (similarity._nearest, flow_loss._explained, affinity._vote) if not f.signatures]
sys.exit(" ".join(cold) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(default_model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_objects_say_how_unsure_they_are_and_the_list_ranks_them(network: Network, frames: list[Frame]) -> None:
    height, width = frames[0].image.shape[:2]
    scenes = run(network, frames)
    assert any(scene.look for scene in scenes)
    for scene in scenes:
        by_id = {item.id: item for item in scene.objects}
        assert all(0 <= item.uncertainty <= 1 for item in scene.objects)
        assert len(scene.look) <= 5
        assert [look.priority for look in scene.look] == sorted((k.priority for k in scene.look), reverse=True)
        for look in scene.look:
            x0, y0, x1, y1 = look.box
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert 0 < look.priority <= 1
            assert (look.reason == "unexplained") == (look.id is None)
            assert look.id is None or by_id[look.id].box == look.box


def test_only_finals_carry_evidence_and_it_is_that_of_their_objects(network: Network, frames: list[Frame]) -> None:
    finals = []
    for scene in run(network, frames):
        if scene.kind == "provisional":
            assert scene.evidence is None
            continue
        finals.append(scene)
        evidence = scene.evidence
        assert evidence is not None
        assert (evidence.model_name, evidence.model_hash) == (network.name, network.hash)
        assert {item.id for item in scene.objects} <= set(evidence.ids)
        assert len(evidence.members) == len(evidence.ids)
        assert evidence.doubt().shape == network.grid
        assert scene.commit is not None
        assert scene.commit.margin is None or scene.commit.margin >= 0
    assert finals[0].evidence.flow is None
    assert all(scene.evidence.flow is not None for scene in finals[1:])
