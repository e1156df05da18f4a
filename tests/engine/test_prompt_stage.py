"""Prompts and the rest of the engine: what may be pointed at, ids that stay, and nothing changed without prompts."""

from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig, apply
from engine.errors import UsageError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.prompts.config import PromptsConfig
from engine.prompts.stage import Prompts
from engine.scene import Scene
from streaming.sources import open_source
from tests.engine.prompt_scenes import FRAME_SIZE, Disc, overlap, percepts, visible

RED, BLUE = (40, 40, 200), (200, 60, 40)
DISCS: list[Disc] = [(20, 15, 7, RED), (12, 50, 6, BLUE)]
"""On the grid of 40 x 70; the frame is twice as large."""


@pytest.fixture
def prompts() -> Prompts:
    prompts = Prompts(PromptsConfig())
    prompts.step(percepts(DISCS), 3, FRAME_SIZE)
    return prompts


def mask_of(prompts: Prompts, identity: int) -> np.ndarray:
    """The candidate of a prompted object in a frame that stands still."""
    seen = percepts(DISCS, DISCS)
    joined = prompts.step(seen, 4, FRAME_SIZE)
    assert list(prompts.objects) == [identity]
    assert len(joined.masks) == len(seen.masks) + 1
    assert joined.scores[-1] >= 0.9
    return joined.masks[-1]


def test_a_mask_is_followed(prompts: Prompts) -> None:
    exact = np.repeat(np.repeat(visible(DISCS)[0], 2, axis=0), 2, axis=1)
    prompts.track(5, mask=exact)
    assert overlap(mask_of(prompts, 5), visible(DISCS)[0]) > 0.9


def test_a_box_takes_the_candidate_that_fits(prompts: Prompts) -> None:
    prompts.track(5, box=(86, 12, 112, 38))
    assert overlap(mask_of(prompts, 5), visible(DISCS)[1]) > 0.9


def test_a_point_takes_the_candidate_under_it(prompts: Prompts) -> None:
    prompts.track(5, point=(32, 41))
    assert overlap(mask_of(prompts, 5), visible(DISCS)[0]) > 0.9


@pytest.mark.parametrize("where", [{"box": (16, 26, 46, 56)}, {"point": (30, 40)}])
def test_without_a_candidate_the_mask_grows_from_what_looks_alike(where: dict) -> None:
    prompts = Prompts(PromptsConfig())
    prompts.step(percepts(DISCS, proposed=[]), 3, FRAME_SIZE)
    prompts.track(5, **where)
    assert overlap(mask_of(prompts, 5), visible(DISCS)[0]) > 0.75


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of mask, box, point"),
        ({"box": (0, 0, 9, 9), "point": (1, 1)}, "box and point"),
        ({"mask": np.zeros(FRAME_SIZE, bool)}, "no pixel is set"),
        ({"mask": np.zeros((4, 4), bool)}, r"must be bool\[80, 140\]"),
        ({"mask": np.ones(FRAME_SIZE, np.uint8)}, r"uint8\[80, 140\]"),
        ({"mask": np.arange(80 * 140).reshape(FRAME_SIZE) == 77}, "fills no cell"),
        ({"box": (5, 5, 5, 9)}, "x0 < x1"),
        ({"box": (5, 5, 141, 9)}, "x1 <= 140"),
        ({"box": (5, 5, 9)}, "4 numbers"),
        ({"box": (5, 5, float("nan"), 9)}, "4 numbers"),
        ({"point": (140, 3)}, "inside the frame"),
        ({"point": (-1, 3)}, "inside the frame"),
        ({"point": "ab"}, "2 numbers"),
        ({"point": (3, 3), "frame_index": 2}, "kept are frames 3 to 3"),
    ],
)
def test_what_cannot_be_followed_is_one_line(prompts: Prompts, given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prompts.track(5, **given)
    assert "\n" not in str(caught.value)
    assert not prompts.objects


def test_no_frame_yet_too_many_and_unknown_ids() -> None:
    prompts = Prompts(PromptsConfig(objects=1))
    with pytest.raises(UsageError, match="no frame yet"):
        prompts.track(1, point=(3, 3))
    prompts.step(percepts(DISCS), 0, FRAME_SIZE)
    prompts.track(1, point=(30, 40))
    with pytest.raises(UsageError, match="untrack one first"):
        prompts.track(2, point=(100, 24))
    with pytest.raises(UsageError, match="untrack 2: not followed"):
        prompts.untrack(2)
    prompts.untrack(1)
    prompts.track(2, point=(100, 24))


def test_a_prompt_may_come_late() -> None:
    prompts = Prompts(PromptsConfig())
    video: list[list[Disc]] = [[(20, 15 + 2 * t, 6, RED)] for t in range(8)]
    for t, discs in enumerate(video[:7]):
        prompts.step(percepts(discs, video[t - 1] if t else None), t, FRAME_SIZE)
    # What was under that point in frame 2 has moved on by now.
    assert prompts.track(5, point=(2 * 14, 40), frame_index=2) == 2
    joined = prompts.step(percepts(video[7], video[6]), 7, FRAME_SIZE)
    assert overlap(joined.masks[-1], visible(video[7])[0]) > 0.75
    with pytest.raises(UsageError, match="kept are frames 2 to 7"):
        prompts.track(6, point=(28, 40), frame_index=1)


def test_a_part_wins_over_the_whole_it_was_taken_from(prompts: Prompts) -> None:
    half = np.repeat(np.repeat(visible(DISCS)[0], 2, axis=0), 2, axis=1)
    half[:, 30:] = False
    prompts.track(5, mask=half)
    joined = prompts.step(percepts(DISCS, DISCS), 4, FRAME_SIZE)
    # The whole disc yields, the other disc does not.
    assert joined.scores[:2].tolist() == pytest.approx([0.0, 0.8])


@pytest.fixture(scope="module")
def network(motion_model: Path) -> Network:
    return Network(motion_model)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with open_source("demo://?frames=24&seed=5&size=240x428&static_camera=1") as source:
        return list(source)


def largest(frame: Frame) -> np.ndarray:
    assert frame.truth is not None
    values, counts = np.unique(frame.truth[frame.truth > 0], return_counts=True)
    mask: np.ndarray = frame.truth == values[counts.argmax()]
    return mask


@pytest.mark.parametrize("lag", [0, 5])
def test_a_pinned_id_is_shown_in_every_scene_that_follows(network: Network, frames: list[Frame], lag: int) -> None:
    pipeline = Pipeline(apply(EngineConfig(), {"select.lag": lag}), network)
    scenes: list[Scene] = []
    for frame in frames[:8]:
        scenes += pipeline.step(frame)
    earlier = {item.id for scene in scenes for item in scene.objects}
    thing = largest(frames[7])
    value = frames[7].truth[thing][0]
    pinned = pipeline.track(mask=thing)
    assert pinned not in earlier
    later = [scene for frame in frames[8:] for scene in pipeline.step(frame)] + pipeline.flush()
    following = [scene for scene in later if scene.frame_index > 7]
    shown = {}
    for scene in following:
        for item in scene.objects:
            if item.id == pinned:
                shown[scene.kind, scene.frame_index] = scene.labels == item.label
                assert item.age == scene.frame_index - 7
    for kind in ("provisional", "final"):
        overlaps = [
            overlap(shown[kind, frame.index], frame.truth == value) if (kind, frame.index) in shown else 0.0
            for frame in frames[8:]
        ]
        assert np.mean(overlaps) > 0.6, kind
    # Labels name one object each.
    assert all(len({item.id for item in scene.objects}) == len(scene.objects) for scene in later)
    newest = max(item.id for scene in later for item in scene.objects)
    pipeline.untrack(pinned)
    assert pipeline.track(point=(5, 5)) > newest


def test_without_prompts_scenes_are_the_same_to_the_bit(network: Network, frames: list[Frame]) -> None:
    def run(untouched: bool) -> list[Scene]:
        pipeline = Pipeline(EngineConfig(), network)
        if untouched:
            pipeline.prompts.step = lambda percepts, frame_index, frame_size: percepts  # type: ignore[method-assign]
            pipeline.prompts.pinned = lambda frame, masks, members, tracks: tracks  # type: ignore[method-assign]
        scenes = [scene for frame in frames[:12] for scene in pipeline.step(frame)]
        return scenes + pipeline.flush()

    for with_prompts, without in zip(run(False), run(True), strict=True):
        assert with_prompts.objects == without.objects
        assert (with_prompts.labels == without.labels).all()


def test_percepts_without_prompts_are_passed_on_untouched() -> None:
    seen = percepts(DISCS)
    assert Prompts(PromptsConfig()).step(seen, 0, FRAME_SIZE) is seen


def test_reset_lets_everything_go(network: Network, frames: list[Frame]) -> None:
    pipeline = Pipeline(EngineConfig(), network)
    pipeline.step(frames[0])
    pinned = pipeline.track(mask=largest(frames[0]))
    pipeline.reset()
    with pytest.raises(UsageError, match="not followed"):
        pipeline.untrack(pinned)
    with pytest.raises(UsageError, match="no frame yet"):
        pipeline.track(point=(1, 1))
