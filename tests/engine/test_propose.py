"""Candidates: components at several levels, no specks, no duplicates, best first."""

import dataclasses

import numpy as np
import pytest

from engine.config import ProposeConfig
from engine.percepts import Percepts
from engine.propose.candidates import confirmed_scores, foreground_components, propose

GRID = (64, 112)


def percepts(masks: list[np.ndarray], scores: list[float], background: np.ndarray) -> Percepts:
    logits = np.array([np.where(mask, 3.0, -3.0) for mask in masks], np.float32).reshape(-1, *GRID)
    return Percepts(logits > 0, np.asarray(scores, np.float32), background.astype(np.float32), None, None, None, logits)


def disc(cy: float, cx: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def test_every_blob_of_every_level_is_a_candidate() -> None:
    background = np.full(GRID, 0.95)
    background[disc(20, 30, 8)] = 0.1
    background[disc(40, 80, 6)] = 0.6
    logits, scores = foreground_components(background, (0.3, 0.5), 5)
    assert len(logits) == 3  # both at 0.3, only the sure one at 0.5
    assert {int((mask > 0).sum()) for mask in logits} == {disc(20, 30, 8).sum(), disc(40, 80, 6).sum()}
    assert sorted(scores) == pytest.approx([0.4, 0.9, 0.9], abs=1e-5)
    for mask in logits:
        assert not ((mask > 0) & disc(20, 30, 8)).any() or not ((mask > 0) & disc(40, 80, 6)).any()


def test_specks_and_duplicates_leave_and_the_best_score_stays() -> None:
    speck = np.zeros(GRID, bool)
    speck[5, 5] = True
    big, almost = disc(30, 50, 10), disc(30, 50, 10)
    almost[20, 50] = False
    other = disc(30, 50, 8)
    found = propose(percepts([speck, big, almost, other], [0.99, 0.4, 0.6, 0.5], np.full(GRID, 0.9)), ProposeConfig())
    assert found.scores == pytest.approx([0.6, 0.5])
    assert (found.masks[0] == almost).all()
    assert (found.masks == (found.logits > 0)).all()


def test_kept_candidates_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    masks = [disc(rng.uniform(10, 54), rng.uniform(10, 100), rng.uniform(0.5, 14)) for _ in range(60)]
    masks += [np.roll(mask, 1, axis=1) for mask in masks[:30]]
    scores = rng.permutation(len(masks)) / len(masks)
    config = ProposeConfig(proposals=40)
    expected: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if masks[i].sum() < round(config.min_area * GRID[0] * GRID[1]) or len(expected) == config.proposals:
            continue
        if all((masks[i] & masks[j]).sum() <= 0.9 * (masks[i] | masks[j]).sum() for j in expected):
            expected.append(int(i))
    found = propose(percepts(masks, list(scores), np.full(GRID, 0.95)), config)
    assert found.scores == pytest.approx(scores[expected].astype(np.float32))


def test_nothing_there_is_a_valid_answer() -> None:
    found = propose(percepts([], [], np.full(GRID, 0.99)), ProposeConfig())
    assert found.masks.shape == (0, *GRID)
    assert found.scores.shape == (0,)


def test_a_blob_no_instance_proposal_agrees_with_loses_most_of_its_score() -> None:
    blob, elsewhere = disc(20, 30, 8), disc(45, 90, 8)
    sure = np.array([0.9], np.float32)
    kept = confirmed_scores(sure, blob[None], blob[None], np.array([1.0], np.float32))
    half = confirmed_scores(sure, blob[None], blob[None], np.array([0.5], np.float32))
    lost = confirmed_scores(sure, blob[None], elsewhere[None], np.array([1.0], np.float32))
    assert [*kept, *half, *lost] == pytest.approx([0.9, 0.9 * 0.65, 0.9 * 0.3])
    # A model without instance masks cannot confirm anything, and nothing is held against its blobs.
    assert confirmed_scores(sure, blob[None], np.empty((0, *GRID), bool), np.empty(0, np.float32)) == sure


def test_without_motion_the_foreground_map_adds_no_blobs_to_the_masks() -> None:
    background = np.full(GRID, 0.95)
    background[disc(20, 30, 8)] = 0.1
    alone = percepts([disc(45, 90, 8)], [0.5], background)
    moving = dataclasses.replace(alone, flow=np.zeros((2, *GRID), np.float32))
    assert len(propose(alone, ProposeConfig()).masks) == 1
    assert len(propose(moving, ProposeConfig()).masks) == 2
    # Blobs are all that a model without masks has.
    assert len(propose(percepts([], [], background), ProposeConfig()).masks) == 1
