"""Another model in the middle of a stream: nothing lost, no window with two models, memories kept where they fit."""

from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from streaming.sources import open_source

pytest.importorskip("onnx")
from tests import models
from tests.swappable import noisy, variant

FRAMES = 20
AT = 10


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with open_source(f"demo://?frames={FRAMES}&seed=5&size=240x428") as source:
        return list(source)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(variant(tmp_path_factory.mktemp("twin") / "twin.onnx", "twin"))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A model of another input and another grid."""
    monkeypatch.setattr(models, "SIZE", (128, 192))
    monkeypatch.setattr(models, "GRID", (32, 48))
    return Network(variant(tmp_path / "small.onnx", "small"))


def run_with_swap(pipeline: Pipeline, frames: list[Frame], network: Network) -> tuple[list[Scene], list[Scene]]:
    """Scenes until the swap, its own included, and those after it."""
    before = [scene for frame in frames[:AT] for scene in pipeline.step(frame)] + pipeline.swap(network)
    after = [scene for frame in frames[AT:] for scene in pipeline.step(frame)] + pipeline.flush()
    return before, after


def only(kind: str, scenes: list[Scene]) -> list[Scene]:
    return [scene for scene in scenes if scene.kind == kind]


def same_id_share(before: Scene, after: Scene) -> float:
    """Share of objects that overlap well from one scene to the next and keep their id."""
    kept = []
    for old in before.objects:
        for new in after.objects:
            a, b = before.labels == old.label, after.labels == new.label
            if (a & b).sum() > 0.6 * (a | b).sum():
                kept.append(old.id == new.id)
    assert kept, "no object overlaps well: the frames say nothing"
    return float(np.mean(kept))


def test_every_frame_is_final_under_the_model_that_saw_it(
    motion_model: Path, twin: Network, frames: list[Frame]
) -> None:
    before, after = run_with_swap(Pipeline(EngineConfig(), Network(motion_model)), frames, twin)
    for kind in ("provisional", "final"):
        assert [s.frame_index for s in only(kind, before)] == list(range(AT))
        assert [s.frame_index for s in only(kind, after)] == list(range(AT, FRAMES))
    assert {s.evidence.model_hash for s in only("final", before)} != {twin.hash}
    assert {s.evidence.model_hash for s in only("final", after)} == {twin.hash}


def test_identities_stay_and_the_path_starts_anew(motion_model: Path, twin: Network, frames: list[Frame]) -> None:
    before, after = run_with_swap(Pipeline(EngineConfig(), Network(motion_model)), frames, twin)
    assert same_id_share(only("final", before)[-1], only("provisional", after)[0]) == 1.0
    # The flow did not break: what moves is found in the very first frame of the new model.
    assert only("provisional", after)[0].objects


def test_seeds_and_prompts_stay_where_the_embedding_fits(
    default_model: Path, frames: list[Frame], tmp_path: Path
) -> None:
    pipeline = Pipeline(EngineConfig(), Network(default_model))
    other = Network(noisy(default_model, tmp_path / "noisy.onnx", 0))
    scenes = [scene for frame in frames[:6] for scene in pipeline.step(frame)]
    found = max(only("provisional", scenes)[-1].objects, key=lambda item: item.area)
    identity = pipeline.track(box=found.box)
    scenes = [scene for frame in frames[6:AT] for scene in pipeline.step(frame)] + pipeline.swap(other)
    memory = pipeline.seeds.memory
    assert memory is not None
    after = [scene for frame in frames[AT : AT + 5] for scene in pipeline.step(frame)]
    assert pipeline.seeds.memory is memory
    assert all(identity in {item.id for item in scene.objects} for scene in only("provisional", after))
    assert same_id_share(only("final", scenes)[-1], only("provisional", after)[0]) >= 0.5


def test_another_grid_and_embedding_start_afresh(default_model: Path, small: Network, frames: list[Frame]) -> None:
    shipped = Network(default_model)
    pipeline = Pipeline(EngineConfig(), shipped)
    before, after = run_with_swap(pipeline, frames, small)
    assert [s.frame_index for s in only("final", before + after)] == list(range(FRAMES))
    assert all(s.labels.shape == frames[0].image.shape[:2] for s in after)
    assert any(s.objects for s in after)
    assert pipeline.seeds.memory is None
    old = {item.id for s in before for item in s.objects}
    assert old
    assert not old & {item.id for s in after for item in s.objects}
    back = pipeline.swap(shipped)
    for frame in frames[:3]:
        later = Frame(frame.image, frame.index + FRAMES, frame.t_capture_ns, frame.source)
        back += pipeline.step(later)
    assert [s.frame_index for s in only("provisional", back)] == [FRAMES, FRAMES + 1, FRAMES + 2]


def test_pipelines_share_a_network(motion_model: Path, twin: Network, frames: list[Frame]) -> None:
    """Two streams in turns through the same networks give what each gives alone."""
    before, after = run_with_swap(Pipeline(EngineConfig(), Network(motion_model)), frames, twin)
    alone = before + after
    network = Network(motion_model)
    pipelines = [Pipeline(EngineConfig(), network) for _ in range(2)]
    scenes: list[list[Scene]] = [[], []]
    for index, frame in enumerate(frames):
        for pipeline, out in zip(pipelines, scenes, strict=True):
            out += pipeline.swap(twin) if index == AT else []
            out += pipeline.step(frame)
    for pipeline, out in zip(pipelines, scenes, strict=True):
        out += pipeline.flush()
        assert [(s.kind, s.frame_index, s.objects) for s in out] == [(s.kind, s.frame_index, s.objects) for s in alone]
        assert all((a.labels == b.labels).all() for a, b in zip(out, alone, strict=True))
