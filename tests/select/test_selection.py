"""The whole selection on small synthetic videos, against the offline optimum of the slow definitions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import UsageError
from engine.percepts import Percepts
from engine.select.config import SelectionConfig
from engine.select.path import offline_path
from engine.select.reference import paper_path, slow_conflicts, slow_costs
from engine.select.selection import Selection


def run(selection, video, indices=None, image=None):
    steps = [
        selection.step(percepts, index, image)
        for index, percepts in zip(indices or itertools.count(), video, strict=False)
    ]
    return steps, [commit for step in steps for commit in step.commits] + selection.flush()


@pytest.mark.parametrize(
    "config",
    [
        SelectionConfig(lag=50, combinations=4),
        SelectionConfig(lag=50, combinations=4, warped=False, min_flow_px=0.0),
        SelectionConfig(lag=50, combinations=6, paper_mode=True, lambda_consistency=2.0),
        SelectionConfig(lag=50, combinations=5, lambda_flow=0.0, diversity_iou=0.7),
    ],
    ids=["default", "unwarped", "paper", "no flow"],
)
def test_decisions_are_the_optimum_over_the_whole_video(video, config):
    rng = np.random.default_rng(1)
    for _ in range(4):
        frames = video(rng, 7, 5)
        traced = []
        selection = Selection(config, trace=lambda *costs, into=traced: into.append(costs))
        _, commits = run(selection, frames)
        combinations, unaries, pairwises = slow_costs(frames, config)
        for (_, unary, pairwise), slow_unary, slow_pairwise in zip(traced, unaries, pairwises, strict=True):
            np.testing.assert_allclose(unary, slow_unary, atol=1e-4)
            assert (pairwise is None) == (slow_pairwise is None)
            if pairwise is not None:
                np.testing.assert_allclose(pairwise, slow_pairwise, atol=1e-4)
        nodes, cost = paper_path(unaries, pairwises)
        assert offline_path(unaries, pairwises)[1] == pytest.approx(cost)
        assert [c.members for c in commits] == [combinations[t][n] for t, n in enumerate(nodes)]
        assert all(c.exact and c.loss_bound == 0.0 for c in commits)


def test_every_frame_is_decided_once_in_order_and_in_time(video):
    rng = np.random.default_rng(2)
    for lag in (0, 1, 3):
        frames = video(rng, 20, 6)
        indices = np.cumsum(rng.integers(1, 4, size=20)).tolist()
        selection = Selection(SelectionConfig(lag=lag, combinations=5))
        steps, commits = run(selection, frames, indices)
        assert [c.frame_index for c in commits] == indices
        assert all(0 <= c.lag <= lag for c in commits)
        decided = 0
        for t, step in enumerate(steps):
            decided += len(step.commits)
            assert [index for index, _ in step.path] == indices[decided : t + 1]
            if step.path:
                assert step.path[-1][1] == step.provisional
            else:
                assert step.commits[-1].members == step.provisional


def test_selected_masks_do_not_overlap_beyond_the_tolerance(video):
    rng = np.random.default_rng(3)
    for config in (SelectionConfig(), SelectionConfig(paper_mode=True)):
        frames = video(rng, 10, 8)
        _, commits = run(Selection(config), frames)
        for commit, percepts in zip(commits, frames, strict=True):
            chosen = percepts.masks[list(commit.members)]
            assert not slow_conflicts(chosen, config.overlap_allowed).any()


def test_flow_and_consistency_find_an_object_the_background_map_misses():
    """A square moves; the background map is blind to it except in the first frames."""
    h, w = 24, 40
    video = []
    for t in range(10):
        mask = np.zeros((2, h, w), bool)
        mask[0, 8:16, 4 + 2 * t : 12 + 2 * t] = True
        mask[1, 2:6, 30:36] = True
        flow = np.zeros((2, h, w), np.float32)
        flow[0, mask[0]] = -2.0
        background = np.full((h, w), 0.8, np.float32)
        background[mask[0]] = 0.3 if t < 2 else 0.51
        video.append(
            Percepts(
                mask,
                np.ones(2, np.float32),
                background,
                None,
                flow if t else None,
                flow if t else None,
                mask.astype(np.float32) - 0.5,
            )
        )
    video = [p if p.residual is None else replace(p, residual=2 * p.residual) for p in video]
    _, alone = run(Selection(SelectionConfig(lambda_flow=0.0, lambda_consistency=0.0, lambda_score=0.0)), video)
    _, together = run(Selection(SelectionConfig(lambda_score=0.0)), video)
    assert [c.members for c in alone][4:] == [()] * 6
    assert [c.members for c in together] == [(0,)] * 10


def test_a_gap_weakens_consistency(video):
    frames = video(np.random.default_rng(4), 2, 5)
    config = SelectionConfig(lambda_flow=0.0)
    tables = []
    for gap in (1, 4):
        traced = []
        run(Selection(config, trace=lambda *costs, into=traced: into.append(costs)), frames, [10, 10 + gap])
        tables.append(traced[1][2])
    np.testing.assert_allclose(tables[1], tables[0] / 4)


def test_a_flush_cuts_and_a_reset_forgets(video):
    frames = video(np.random.default_rng(5), 8, 5)
    selection = Selection(SelectionConfig())
    _, once = run(selection, frames)
    _, again = run(selection, frames)
    assert once == again
    selection.step(frames[0], 3)
    selection.reset()
    assert selection.flush() == []
    _, fresh = run(selection, frames)
    assert fresh == once


def test_the_same_video_gives_the_same_decisions(video):
    frames = video(np.random.default_rng(6), 12, 10)
    assert run(Selection(SelectionConfig()), frames)[1] == run(Selection(SelectionConfig()), frames)[1]


def empty_percepts(shape, n, flow):
    return Percepts(
        masks=np.zeros((n, *shape), bool),
        scores=np.zeros(n, np.float32),
        background=np.full(shape, 0.9, np.float32),
        embedding=None,
        flow=np.zeros((2, *shape), np.float32) if flow else None,
        residual=np.zeros((2, *shape), np.float32) if flow else None,
        logits=np.full((n, *shape), -1.0, np.float32),
    )


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 15)])
@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("form", ["explained", "registered"])
def test_frames_with_nothing_in_them_are_decided_as_empty(shape, n, form):
    frames = [empty_percepts(shape, n, flow=t > 0) for t in range(4)]
    image = np.zeros((*shape, 3), np.uint8)
    _, commits = run(Selection(SelectionConfig(flow_form=form)), frames, image=image)
    assert [c.members for c in commits] == [()] * 4


def test_a_frame_without_flow_in_mid_stream_is_compared_without_motion(video):
    frames = video(np.random.default_rng(7), 3, 5)
    frames[1] = replace(frames[1], flow=None, residual=None)
    traced = []
    run(Selection(SelectionConfig(), trace=lambda *costs: traced.append(costs)), frames)
    assert (traced[1][2] <= 0.0).all()
    assert (traced[1][2] >= -0.5).all()


def test_the_registered_form_chooses_by_colour(video):
    frames = video(np.random.default_rng(8), 6, 4)
    rng = np.random.default_rng(9)
    selection = Selection(SelectionConfig(flow_form="registered", min_flow_px=0.0))
    commits = []
    for t, percepts in enumerate(frames):
        image = rng.integers(0, 256, size=(*percepts.background.shape, 3), dtype=np.uint8)
        commits += selection.step(percepts, t, image).commits
    commits += selection.flush()
    assert [c.frame_index for c in commits] == list(range(6))
    with pytest.raises(UsageError, match="image"):
        Selection(SelectionConfig(flow_form="registered")).step(frames[0], 0)


def test_misuse_is_refused(video):
    frames = video(np.random.default_rng(10), 2, 3)
    selection = Selection(SelectionConfig())
    selection.step(frames[0], 5)
    with pytest.raises(ValueError, match="ascending"):
        selection.step(frames[1], 5)
    with pytest.raises(ValueError, match="reset"):
        selection.step(empty_percepts((4, 4), 1, flow=True), 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lag": -1},
        {"combinations": 0},
        {"combinations": 65},
        {"lambda_flow": -1.0},
        {"lambda_consistency": float("nan")},
        {"conflict_tolerance": 1.0},
        {"diversity_iou": 0.0},
        {"flow_form": "guessed"},
        {"background_clamp": 0.5},
        {"node_budget": 0},
    ],
)
def test_configuration_out_of_range_names_the_field(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SelectionConfig(**wrong)
