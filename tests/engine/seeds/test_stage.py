"""The stage on small made worlds: what it adds, what it learns, what it must never learn."""

import dataclasses

import numpy as np
import pytest

from engine.errors import UsageError
from engine.percepts import Percepts
from engine.seeds.config import SeedsConfig
from engine.seeds.propagate import UNCONFIRMED_LIFE_FRAMES
from engine.seeds.sets import soft_foreground
from engine.seeds.stage import SeedFrame, Seeds

GRID = (32, 56)
THING, WALL = np.eye(6, dtype=np.float32)[:2] * 2.5


def each_frame(**settings: object) -> SeedsConfig:
    """A configuration that looks for seeds in every frame, so that every frame can be asked about."""
    return SeedsConfig(look_frames=1, **settings)  # type: ignore[arg-type]


def box(x: int, y: int = 10) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    mask[y : y + 10, max(0, x) : x + 12] = True
    return mask


def world(
    x: int | None,
    *,
    proposals: tuple[np.ndarray, ...] = (),
    seen_by_network: bool = True,
    speed: float = 2.0,
    seed: int = 0,
) -> Percepts:
    """A wall and, at column x, a thing moving right; proposals are what the network found, score 0.9."""
    rng = np.random.default_rng(seed)
    thing = np.zeros(GRID, bool) if x is None else box(x)
    embedding = np.where(thing, THING[:, None, None], WALL[:, None, None])
    embedding = embedding + rng.normal(size=embedding.shape) * 0.05
    flow = np.zeros((2, *GRID), np.float32)
    flow[0, thing] = -speed
    masks = np.array(proposals, bool).reshape(-1, *GRID)
    return Percepts(
        masks=masks,
        scores=np.full(len(masks), 0.9, np.float32),
        background=np.where(thing & seen_by_network, 0.05, 0.95).astype(np.float32),
        embedding=embedding.astype(np.float32),
        flow=flow,
        residual=flow,
        logits=np.where(masks, 3.0, -3.0).astype(np.float32),
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def taught(seeds: Seeds, frames: int = 5, identity: int = 1) -> int:
    """Show a clearly seen thing for some frames; returns the next frame index."""
    for t in range(frames):
        seeds.step(world(4 + 2 * t, proposals=(box(4 + 2 * t),), seed=t), t)
        assert seeds.learn(t, {identity: 0}, True, 0.0)
    return frames


def snapshot(seeds: Seeds) -> list[bytes]:
    assert seeds.memory is not None
    stores = [seeds.memory.background, *(m.reservoir for m in seeds.memory.objects.values())]
    return [store.rows.tobytes() for store in stores]


def test_final_masks_teach_the_memories_what_is_thing_and_what_is_wall() -> None:
    seeds = Seeds(each_frame())
    assert seeds.similarity(1, THING) == 0.0
    taught(seeds)
    assert seeds.similarity(1, THING) > 0.9
    assert seeds.similarity(1, WALL) < 0.05
    assert seeds.memory is not None
    assert (((seeds.memory.background.rows - WALL) ** 2).sum(axis=1) < 1.0).all()
    assert seeds.foreground(1) > 0.5
    assert seeds.foreground(2) == 0.0


def test_the_memories_correct_the_background_map_as_stated() -> None:
    config = each_frame(correct_known_only=False, refine=False, correction=0.4)
    seeds = Seeds(config)
    t = taught(seeds)
    blind = world(20, seen_by_network=False, seed=9)
    memory = seeds.memory
    assert memory is not None
    assert blind.embedding is not None
    rows = memory.known_rows(0, 9)
    p = soft_foreground(blind.embedding.reshape(6, -1), rows, memory.background.rows).reshape(GRID)
    frame = seeds.step(blind, t)
    assert frame.percepts.background == pytest.approx(0.6 * blind.background + 0.4 * (1 - p), abs=1e-5)
    assert frame.percepts.background[box(20)].mean() < 0.65
    assert frame.percepts.background[~box(20)].mean() > 0.9


def test_unknown_surfaces_are_left_to_the_network() -> None:
    seeds = Seeds(each_frame(correct_known_only=True, refine=False))
    t = taught(seeds)
    strange = world(20, seed=9)
    assert strange.embedding is not None
    strange.embedding[:, 20:30, 40:50] = np.array([0, 0, 9, 0, 0, 0], np.float32)[:, None, None]
    frame = seeds.step(strange, t)
    assert frame.percepts.background[20:30, 40:50] == pytest.approx(strange.background[20:30, 40:50], abs=1e-4)


def test_a_moving_thing_no_proposal_covers_grows_a_candidate() -> None:
    seeds = Seeds(each_frame())
    seeds.step(world(4), 0)
    frame = seeds.step(world(6), 1)
    assert frame.own == 0
    assert frame.grown == 1
    assert iou(frame.percepts.masks[0], box(6)) > 0.9
    assert 0.1 < frame.percepts.scores[0] <= SeedsConfig().grown_score
    assert frame.salient is not None
    assert frame.salient[box(6)].mean() > 0.9
    assert frame.salient[~box(6)].mean() < 0.1


def test_nothing_grows_where_a_proposal_is_where_nothing_moves_or_when_switched_off() -> None:
    for config, percepts in (
        (each_frame(), world(6, proposals=(box(6),))),
        (each_frame(), world(6, speed=0.0)),
        (each_frame(grow=False), world(6)),
    ):
        seeds = Seeds(config)
        seeds.step(percepts, 0)
        assert seeds.step(percepts, 1).grown == 0


def bad_frames() -> dict[str, tuple[Percepts, np.ndarray | None, dict[int, int], bool, float]]:
    good = world(14, proposals=(box(14),))
    image = np.random.default_rng(0).integers(80, 120, (*GRID, 3), np.uint8)
    return {
        "forced with a large bound": (good, image, {1: 0}, False, 0.5),
        "black": (good, np.zeros((*GRID, 3), np.uint8), {1: 0}, True, 0.0),
        "flash": (good, image + np.uint8(100), {1: 0}, True, 0.0),
        "no link to the past": (dataclasses.replace(good, flow=None, residual=None), image, {1: 0}, True, 0.0),
        "nothing selected": (good, image, {}, True, 0.0),
        "no embedding": (dataclasses.replace(good, embedding=None), image, {1: 0}, True, 0.0),
        "same embedding everywhere": (
            dataclasses.replace(good, embedding=np.ones((6, *GRID), np.float32)),
            image,
            {1: 0},
            True,
            0.0,
        ),
        "embedding not finite": (
            dataclasses.replace(good, embedding=np.full((6, *GRID), np.nan, np.float32)),
            image,
            {1: 0},
            True,
            0.0,
        ),
    }


@pytest.mark.parametrize("case", bad_frames())
def test_nothing_is_learned_from_a_guess_or_a_bad_frame(case: str) -> None:
    percepts, image, chosen, exact, bound = bad_frames()[case]
    seeds = Seeds(each_frame())
    t = taught(seeds)
    before = snapshot(seeds)
    seeds.step(world(14, proposals=(box(14),)), t, np.full((*GRID, 3), 90, np.uint8))
    seeds.step(percepts, t + 1, image)
    assert not seeds.learn(t + 1, chosen, exact, bound)
    assert snapshot(seeds) == before


def test_a_forced_commit_with_a_tight_bound_still_teaches() -> None:
    seeds = Seeds(each_frame())
    t = taught(seeds)
    seeds.step(world(14, proposals=(box(14),)), t)
    assert seeds.learn(t, {1: 0}, False, SeedsConfig().max_loss_bound)
    seeds.step(world(16, proposals=(box(16),)), t + 1)
    assert not seeds.learn(t + 7, {1: 0}, True, 0.0)  # a frame it never saw


@pytest.mark.parametrize(("refresh", "expected"), [(1, 12), (5, 3), (0, 1)])
def test_memories_are_refreshed_every_k_frames(refresh: int, expected: int) -> None:
    seeds = Seeds(each_frame(refresh_frames=refresh))
    lessons = 0
    for t in range(12):
        seeds.step(world(4 + 2 * t, proposals=(box(4 + 2 * t),)), t)
        lessons += seeds.learn(t, {1: 0}, True, 0.0)
    assert lessons == expected


def test_an_occlusion_leaves_the_memory_of_an_object_untouched() -> None:
    seeds = Seeds(each_frame())
    t = taught(seeds)
    assert seeds.memory is not None
    before = seeds.memory.objects[1].reservoir.rows.copy()
    for later in range(t, t + 40):
        seeds.step(world(None, proposals=(box(40, 0),), seed=later), later)
        seeds.learn(later, {2: 0}, True, 0.0)
    assert (seeds.memory.objects[1].reservoir.rows == before).all()
    assert seeds.similarity(1, world(20).embedding[:, box(20)].T) > 0.9  # type: ignore[index]


@pytest.mark.parametrize("guard", [True, False])
def test_an_object_the_selection_misses_does_not_become_background(guard: bool) -> None:
    """Without the guard it does: the guard is what prevents it."""
    seeds = Seeds(each_frame(guard=guard))
    t = taught(seeds)
    for later in range(t, t + 10):
        missed = world(20, proposals=(box(40, 0),), seen_by_network=False, speed=0.0, seed=later)
        seeds.step(missed, later)
        seeds.learn(later, {2: 0}, True, 0.0)
    assert seeds.memory is not None
    nearest = ((seeds.memory.background.rows - THING) ** 2).sum(axis=1).min()
    assert (nearest > 1.0) == guard


def select(frame: SeedFrame, wanted: np.ndarray) -> dict[int, int]:
    """A selection with a fixed idea: whatever overlaps `wanted` most."""
    best = [iou(mask, wanted) for mask in frame.percepts.masks]
    return {1: int(np.argmax(best))} if best and max(best) > 0.3 else {}


@pytest.mark.parametrize("lag", [0, 5])
def test_a_propagated_false_positive_dies_within_its_life_and_teaches_nothing(lag: int) -> None:
    seeds = Seeds(each_frame(grow=False))
    ghost = box(40, 2)
    waiting = {}
    alive = []
    for t in range(30):
        # The network believes in the ghost until frame 2; the selection would take it every time.
        proposals = (ghost,) if t <= 2 else ()
        frame = seeds.step(world(None, proposals=proposals, seed=t), t)
        waiting[t] = select(frame, ghost)
        if waiting[t]:
            alive.append(t)
        if t == 2 + lag:
            for early in range(t - lag + 1):
                seeds.learn(early, waiting[early], True, 0.0)
            memory = seeds.memory
            learned = None if memory is None else {i: m.reservoir.rows.tobytes() for i, m in memory.objects.items()}
        elif t > 2 + lag:
            seeds.learn(t - lag, waiting[t - lag], True, 0.0)
    assert max(alive) < 2 + UNCONFIRMED_LIFE_FRAMES
    assert max(alive) >= 3 + lag
    assert seeds.memory is not None
    assert {i: m.reservoir.rows.tobytes() for i, m in seeds.memory.objects.items()} == learned


def test_a_thing_that_goes_on_moving_stays_a_candidate_without_the_networks_help() -> None:
    seeds = Seeds(each_frame(grow=False))
    found = []
    for t in range(18):
        x = 2 + 2 * t
        frame = seeds.step(world(x, proposals=(box(x),) if t < 3 else (), seed=t), t)
        chosen = select(frame, box(x))
        found.append(bool(chosen))
        seeds.learn(t, chosen, True, 0.0)
    assert all(found)


def test_a_carried_mask_that_equals_a_proposal_is_not_added() -> None:
    seeds = Seeds(each_frame())
    t = taught(seeds)
    frame = seeds.step(world(4 + 2 * t, proposals=(box(4 + 2 * t),)), t)
    assert len(frame.percepts.masks) == frame.own == 1
    assert frame.propagated == 0


def test_a_cut_keeps_the_memories_and_a_reset_does_not() -> None:
    seeds = Seeds(each_frame())
    t = taught(seeds)
    seeds.cut()
    assert seeds.similarity(1, THING) > 0.9
    assert seeds.step(world(14), t).propagated == 0
    seeds.reset()
    assert seeds.similarity(1, THING) == 0.0


def test_switched_off_the_percepts_pass_through_untouched() -> None:
    seeds = Seeds(each_frame(enabled=False))
    percepts = world(6, proposals=(box(6),))
    assert seeds.step(percepts, 0).percepts is percepts
    assert not seeds.learn(0, {1: 0}, True, 0.0)
    quiet = Seeds(each_frame(learn_memory=False, correct_background=False, grow=False, propagate=False))
    for t in range(4):
        frame = quiet.step(percepts, t)
        assert not quiet.learn(t, {1: 0}, True, 0.0)
    assert (frame.percepts.background == percepts.background).all()
    assert len(frame.percepts.masks) == 1


def odd_percepts() -> dict[str, Percepts]:
    plain = world(6, proposals=(box(6),))
    rng = np.random.default_rng(0)

    def tiny(h: int, w: int) -> Percepts:
        flow = rng.normal(size=(2, h, w)).astype(np.float32)
        masks = np.ones((1, h, w), bool)
        return Percepts(
            masks,
            np.ones(1, np.float32),
            rng.random((h, w), np.float32),
            rng.normal(size=(4, h, w)).astype(np.float32),
            flow,
            flow,
            masks.astype(np.float32),
        )

    return {
        "plain": plain,
        "constant embedding": dataclasses.replace(plain, embedding=np.ones((6, *GRID), np.float32)),
        "all zero": dataclasses.replace(
            plain,
            embedding=np.zeros((6, *GRID), np.float32),
            background=np.zeros(GRID, np.float32),
            flow=np.zeros((2, *GRID), np.float32),
            residual=np.zeros((2, *GRID), np.float32),
        ),
        "no flow": dataclasses.replace(plain, flow=None, residual=None),
        "huge flow": dataclasses.replace(plain, flow=np.full((2, *GRID), 1e6, np.float32)),
        "flow not finite": dataclasses.replace(plain, flow=np.full((2, *GRID), np.nan, np.float32), residual=None),
        "background not finite": dataclasses.replace(plain, background=np.full(GRID, np.nan, np.float32)),
        "embedding not finite": dataclasses.replace(plain, embedding=np.full((6, *GRID), np.inf, np.float32)),
        "embedding enormous": dataclasses.replace(plain, embedding=plain.embedding * np.float32(1e4)),  # type: ignore[operator]
        "noise": dataclasses.replace(plain, embedding=rng.normal(size=(6, *GRID)).astype(np.float32)),
        "no proposals": world(6),
        "one pixel": tiny(1, 1),
        "one row": tiny(1, 7),
        "few pixels, more seeds than candidates": tiny(3, 4),
        "odd channels": dataclasses.replace(plain, embedding=plain.embedding[:3]),  # type: ignore[index]
    }


@pytest.mark.parametrize("name", odd_percepts())
def test_whatever_comes_the_answer_is_finite_and_consistent(name: str) -> None:
    percepts = odd_percepts()[name]
    h, w = percepts.background.shape
    seeds = Seeds(each_frame())
    rng = np.random.default_rng(1)
    for t in range(6):
        frame = seeds.step(percepts, t, rng.integers(0, 256, (2 * h, 2 * w, 3), np.uint8) if t % 2 else None)
        out = frame.percepts
        assert np.isfinite(out.background).all()
        assert out.background.min() >= 0
        assert out.background.max() <= 1
        assert len(out.masks) == len(out.scores) == len(out.logits) == frame.own + frame.grown + frame.propagated
        assert (out.masks == (out.logits > 0)).all()
        assert out.masks.dtype == bool
        assert np.isfinite(out.logits).all()
        assert ((out.scores >= 0) & (out.scores <= 1)).all()
        for extra in (frame.salient, frame.foreground):
            assert extra is None or (np.isfinite(extra).all() and extra.shape == (h, w))
        seeds.learn(t, {1: 0} if len(out.masks) else {}, True, 0.0)
        assert np.isfinite(seeds.foreground(1))


def test_a_stage_survives_good_and_odd_frames_in_turn() -> None:
    seeds = Seeds(each_frame())
    odd = [p for p in odd_percepts().values() if p.background.shape == GRID and p.embedding is not None]
    odd = [p for p in odd if p.embedding is not None and len(p.embedding) == 6]
    for t in range(40):
        seeds.step(odd[(t // 2) % len(odd)] if t % 2 else world(6, proposals=(box(6),), seed=t), t)
        seeds.learn(t, {1: 0}, True, 0.0) if t % 2 == 0 else seeds.learn(t, {}, True, 0.0)
    assert seeds.similarity(1, THING) > 0.9


def test_a_setting_out_of_range_names_itself() -> None:
    with pytest.raises(UsageError, match=r"seeds correction=1\.5: must be 0"):
        SeedsConfig(correction=1.5)
    with pytest.raises(UsageError, match="window_px=4: must be odd"):
        SeedsConfig(window_px=4)


def test_between_looks_the_memories_still_speak() -> None:
    seeds = Seeds(SeedsConfig(look_frames=2, refine=False))
    for t in range(8):
        frame = seeds.step(world(4 + 2 * t, proposals=(box(4 + 2 * t),), seed=t), t)
        assert (frame.seen is not None) == (t % 2 == 0)
        assert t < 4 or frame.foreground is not None
        seeds.learn(t, {1: 0}, True, 0.0)


def test_what_only_carries_masks_looks_for_no_seeds_and_carries_the_same() -> None:
    looking = Seeds(each_frame(correct_background=False, grow=False))
    carrying = Seeds(each_frame(correct_background=False, grow=False, learn_memory=False))
    for t in range(8):
        # From frame 4 on the network proposes nothing: only the carried mask is left.
        proposals = (box(4 + 2 * t),) if t < 4 else ()
        told, advised = (seeds.step(world(4 + 2 * t, proposals=proposals, seed=t), t) for seeds in (looking, carrying))
        assert told.seen is not None
        assert advised.seen is None
        assert advised.foreground is None
        assert advised.propagated == told.propagated == (t >= 4)
        assert np.array_equal(advised.percepts.masks, told.percepts.masks)
        for seeds, frame in ((looking, told), (carrying, advised)):
            seeds.learn(t, select(frame, box(4 + 2 * t)), True, 0.0)
    assert carrying.memory is None
