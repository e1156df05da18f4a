"""One prompted object on made-up percepts: it moves, hides, returns, and is not taken for its twin."""

import numpy as np
import pytest

from engine.errors import UsageError
from engine.prompts.affinity import frame_features
from engine.prompts.config import PromptsConfig
from engine.prompts.prompt import Prompt, Sight
from tests.engine.prompt_scenes import Disc, disc, overlap, percepts, visible

RED, BLUE, GREEN = (40, 40, 200), (200, 60, 40), (40, 180, 60)
CONFIG = PromptsConfig()


def sight(index: int, discs: list[Disc], before: list[Disc] | None, proposed: list[int] | None = None) -> Sight:
    seen = percepts(discs, before, proposed)
    return Sight(index, seen, frame_features(seen, CONFIG))


def follow(video: list[list[Disc]], proposed: list[int] | None = None) -> list[np.ndarray | None]:
    """Masks of disc 0 in the frames after the first, prompted there by its exact mask."""
    prompt = Prompt(7, sight(0, video[0], None), visible(video[0])[0].astype(np.float32), CONFIG)
    found = []
    for index in range(1, len(video)):
        labels = prompt.step(sight(index, video[index], video[index - 1], proposed))
        found.append(None if labels is None else labels > 0.5)
        assert prompt.lost == (labels is None)
    return found


@pytest.mark.parametrize("proposed", [None, []])
def test_a_moving_object_is_followed_with_and_without_proposals(proposed: list[int] | None) -> None:
    video = [[(20 + t / 4, 12 + 1.5 * t, 7, RED), (10, 50, 5, BLUE)] for t in range(30)]
    for t, mask in enumerate(follow(video, proposed), 1):
        assert mask is not None
        assert overlap(mask, visible(video[t])[0]) > 0.75, t


def test_an_object_hidden_for_ten_frames_is_absent_and_returns() -> None:
    # A wall between columns 27 and 45: the disc is behind it for more than ten frames.
    wall: list[Disc] = [(y, 36, 9, GREEN) for y in (5, 12, 19, 26, 33)]
    video = [[(20.0, 8 + 1.5 * t, 6, RED), *wall] for t in range(36)]
    found = follow(video)
    areas = [int(visible(discs)[0].sum()) for discs in video[1:]]
    hidden = [mask for mask, area in zip(found, areas, strict=True) if area == 0]
    assert len(hidden) >= 2
    assert all(mask is None or mask.sum() < 10 for mask in hidden)
    assert found[-1] is not None
    assert overlap(found[-1], visible(video[-1])[0]) > 0.75


def test_a_whole_scene_without_the_object_for_ten_frames() -> None:
    here: list[Disc] = [(20, 15, 6, RED), (12, 50, 6, BLUE)]
    away: list[Disc] = [(-30, -30, 6, RED), (12, 50, 6, BLUE)]
    back: list[Disc] = [(26, 20, 6, RED), (12, 50, 6, BLUE)]
    found = follow([here] * 3 + [away] * 11 + [back] * 3)
    assert [mask is None for mask in found] == [False] * 2 + [True] * 11 + [False] * 3
    assert overlap(found[-1], visible(back)[0]) > 0.75


def test_of_two_alike_the_one_pointed_at_is_kept() -> None:
    # They pass each other at three pixels' distance.
    video = [[(14.0, 10 + 1.5 * t, 5, RED), (27.0, 58 - 1.5 * t, 5, RED)] for t in range(32)]
    for t, mask in enumerate(follow(video), 1):
        assert mask is not None
        own, twin = visible(video[t])
        assert overlap(mask, own) > 0.7, t
        assert overlap(mask, twin) < 0.1, t


def test_the_twin_is_not_taken_for_the_object_that_left() -> None:
    here: list[Disc] = [(20, 15, 6, RED), (20, 34, 6, RED)]
    away: list[Disc] = [(-30, -30, 6, RED), (20, 34, 6, RED)]
    found = follow([here] * 4 + [away] * 12 + [here] * 3)
    assert all(mask is None for mask in found[3:15])
    assert found[-1] is not None
    assert overlap(found[-1], disc(20, 15, 6)) > 0.75


def test_after_a_cut_it_is_found_by_its_looks() -> None:
    before: list[Disc] = [(20, 10, 6, RED), (12, 50, 6, BLUE)]
    after: list[Disc] = [(25, 60, 6, RED), (12, 20, 6, BLUE)]
    prompt = Prompt(1, sight(0, before, None), visible(before)[0].astype(np.float32), CONFIG)
    prompt.step(sight(1, before, before))
    labels = prompt.step(sight(2, after, None))
    assert labels is not None
    assert overlap(labels > 0.5, visible(after)[0]) > 0.75


def test_a_wrong_proposal_does_not_take_over() -> None:
    # The network only ever sees both discs as one; the prompt was the left one.
    discs: list[Disc] = [(20, 20, 6, RED), (20, 32, 6, BLUE)]
    seen = percepts(discs, discs, [])
    both = disc(20, 20, 6) | disc(20, 32, 6)
    merged = np.where(both, 3.0, -3.0).astype(np.float32)[None]
    prompt = Prompt(1, sight(0, discs, None), visible(discs)[0].astype(np.float32), CONFIG)
    for index in range(1, 25):
        with_both = type(seen)(both[None], np.array([0.9], np.float32), *_rest(seen), merged, {}, seen.image)
        labels = prompt.step(Sight(index, with_both, frame_features(with_both, CONFIG)))
    assert labels is not None
    assert overlap(labels > 0.5, visible(discs)[0]) > 0.8


def _rest(seen: object) -> tuple[np.ndarray, ...]:
    return tuple(getattr(seen, name) for name in ("background", "embedding", "flow", "residual"))


def test_memory_is_bounded_over_ten_thousand_frames_and_keeps_the_first() -> None:
    # Few and small windows: this is about what is kept, not about accuracy.
    config = PromptsConfig(radius_px=2, memory=4)
    turn = 2 * np.pi / 100
    video = [[(20 + 4 * np.sin(turn * t), 35 + 4 * np.cos(turn * t), 3, RED)] for t in range(100)]
    sights = [sight(t, video[t], video[t - 1]) for t in range(100)]
    prompt = Prompt(1, sights[0], visible(video[0])[0].astype(np.float32), config)
    absent, frames = 0, 10_000
    for t in range(1, frames):
        now = sights[t % 100]
        absent += prompt.step(Sight(t, now.percepts, now.features)) is None
        assert len(prompt.memory_frames) <= config.memory
    times = prompt.memory_frames
    assert len(times) == config.memory
    assert times[0] == 0
    # Spread over the whole past, not the last second of it.
    assert max(np.diff(times)) < frames / 2
    assert times[-1] > frames - 50
    assert absent < frames / 100


def test_settings_out_of_range_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"memory=0: must be at least 1"):
        PromptsConfig(memory=0)
    with pytest.raises(UsageError, match=r"recall_shares"):
        PromptsConfig(recall_shares=(3.0, 1.0))
