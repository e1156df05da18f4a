"""What the engine committed becomes labels, or stays open."""

import dataclasses

import cv2
import numpy as np
import pytest

from engine.config import EngineConfig
from engine.perceive.network import Network
from engine.percepts import Percepts
from engine.scene import CommitInfo, Object, Scene
from learning.batches import targets
from learning.labels import IGNORED_ID, Labelled, LabelRules, Tally, Watched, consistent_ids, label_clip, watch
from learning.synthesis.sample import SIZE, Kind, Origin
from streaming.sources.demo import DemoSource

GRID = (64, 112)
EXACT = CommitInfo(True, 2, 0.0)
RULES = LabelRules()

COMB = np.zeros(GRID, bool)
COMB[20:40:2, 20:60] = True
COMB[20:40, 20:22] = True


def square(x: int, y: int = 20, side: int = 16) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def moment(
    mask: np.ndarray,
    step_px: float = 2.0,
    *,
    index: int = 0,
    everywhere: bool = False,
    foreground: float = 0.9,
    score: float = 0.7,
    commit: CommitInfo | None = EXACT,
    unselected: np.ndarray | None = None,
) -> Watched:
    """One frame with one selected mask that moved `step_px` grid pixels to the right since the last one."""
    flow = np.zeros((2, *GRID), np.float32)
    flow[0][np.ones_like(mask) if everywhere else mask] = -step_px
    residual = flow.copy()
    probability = np.where(mask, foreground, 0.05).astype(np.float32)
    masks = np.stack([mask] if unselected is None else [mask, unselected])
    scores = np.array([score, 0.6][: len(masks)], np.float32)
    percepts = Percepts(masks, scores, 1 - probability, None, flow, residual, np.where(masks, 4, -4).astype(np.float32))
    labels = np.kron(mask, np.ones((4, 4))).astype(np.uint16) * 7
    item = Object(7, 7, score, (0, 0, 1, 1), int((labels > 0).sum()), 5, 0.0, foreground)
    image = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), np.uint8)
    return Watched(image, percepts, Scene(index, "final", labels, (item,), "clip", 0, None, commit))


def walk(frames: int, step: int = 2, **options) -> list[Watched]:
    return [moment(square(20 + step * t), step, index=t, **options) for t in range(frames)]


def labelled(watched: list[Watched], keep: int = 99, rules: LabelRules = RULES) -> tuple[list[Labelled], Tally]:
    tally = Tally()
    return label_clip(watched, keep, rules, tally), tally


def test_a_certain_mover_is_labelled_and_the_rest_is_background() -> None:
    found, _ = labelled(walk(4))
    assert [f.position for f in found] == [0, 1, 2, 3]
    for f in found:
        inside = np.kron(square(20 + 2 * f.position), np.ones((4, 4))) > 0
        assert (f.ids[inside] == 1).all()
        assert f.kinds[1] == Kind.MOVING
        assert f.kinds[0] == Kind.ABSENT
        assert f.kinds[IGNORED_ID] == Kind.UNSURE
        outside = cv2.dilate(inside.astype(np.uint8), np.ones((13, 13), np.uint8)) == 0
        assert (f.ids[outside] == 0).all()


@pytest.mark.parametrize(
    ("watched", "cause"),
    [
        (walk(4, commit=CommitInfo(False, 5, 0.5)), "certificate"),
        (walk(4, commit=None), "certificate"),
        (walk(2), "not consistent"),
        (walk(4, foreground=0.4), "moves, not foreground"),
        (walk(4, step=0), "foreground, does not move"),
        ([moment(square(20 + 20 * (t % 2)), 2, index=t) for t in range(6)], "not consistent"),
        ([moment(square(20, side=2), 0.25, index=t) for t in range(4)], "small"),
        ([moment(square(0, 0, 64) | square(48, 0, 64), 0.25, index=t) for t in range(4)], "large"),
        ([moment(COMB, 0.25, index=t) for t in range(4)], "ragged"),
    ],
)
def test_what_is_not_certain_is_not_labelled(watched: list[Watched], cause: str) -> None:
    found, tally = labelled(watched)
    assert found == []
    assert cause in tally.masks or cause in tally.frames


def test_a_small_loss_bound_is_as_good_as_exact() -> None:
    bound = CommitInfo(False, 5, RULES.max_loss_bound / 2)
    assert len(labelled(walk(4, commit=bound))[0]) == 4


def test_relief_that_slides_with_its_surroundings_is_not_an_object() -> None:
    still = dataclasses.replace(RULES, min_contrast=0.0)
    found, tally = labelled(walk(4, everywhere=True), rules=still)
    assert found == []
    assert tally.masks["moves with its surroundings"] == 4


def test_a_sure_proposal_at_rest_is_static_and_one_cut_off_is_scenery() -> None:
    found, _ = labelled([moment(square(20), 0, index=t, foreground=0.1) for t in range(3)])
    assert {int(f.kinds[1]) for f in found} == {Kind.STATIC}
    found, tally = labelled([moment(square(0), 0, index=t, foreground=0.1) for t in range(3)])
    assert found == []
    assert tally.masks["scenery"] == 3


def test_unselected_proposals_and_holes_stay_open() -> None:
    ring = square(40)
    ring[26:30, 46:50] = False
    other = square(80, 40)
    found, _ = labelled([moment(ring, 0.5, index=t, unselected=other) for t in range(3)])
    assert found
    for f in found:
        assert (f.ids[4 * 27 : 4 * 29, 4 * 47 : 4 * 49] == IGNORED_ID).all()
        assert (f.ids[4 * 42 : 4 * 54, 4 * 82 : 4 * 94] == IGNORED_ID).all()


def test_consistency_needs_the_run_and_reaches_its_ends() -> None:
    watched = walk(5)
    gap = dataclasses.replace(watched[2], scene=dataclasses.replace(watched[2].scene, objects=()))
    assert consistent_ids(watched, RULES) == [{7}] * 5
    assert consistent_ids([*watched[:2], gap, *watched[3:]], RULES) == [set()] * 5


def test_at_most_the_asked_number_and_nothing_twice() -> None:
    watched = walk(6)
    found, tally = labelled(watched, keep=2)
    assert len(found) == 2
    assert tally.frames["enough of this clip"] == 4
    same = [dataclasses.replace(w, image=watched[0].image) for w in watched]
    found, tally = labelled(same)
    assert len(found) == 1
    assert tally.frames["near-duplicate"] == 5


def test_targets_of_a_labelled_clip() -> None:
    found, _ = labelled([moment(square(40), 0.5, index=t, unselected=square(80, 40)) for t in range(3)])
    ids, kinds = np.ascontiguousarray(found[0].ids[::2, ::2]), found[0].kinds
    fields = targets(ids, kinds, Origin.CLIP, True, np.random.default_rng(0))
    assert fields["binary"][0, 28, 48] == 1
    assert fields["binary_weight"][0, 28, 48] == 1
    assert fields["binary"][0, 5, 5] == 0
    assert fields["binary_weight"][0, 5, 5] == 1
    assert (fields["binary_weight"][0, 42:54, 82:94] == 0).all()
    # Things nobody labelled may stand anywhere: their centres must not be trained away.
    assert fields["heat_weight"][0, 2, 2] == 0
    assert (fields["heat_weight"][0, 21:27, 41:47] == 0).all()
    assert fields["heat_weight"][0, 14, 24] == 1
    assert fields["valid"].sum() == 1
    hidden = targets(ids, kinds, Origin.CLIP, False, np.random.default_rng(0))
    assert hidden["binary"][0, 28, 48] == 1
    assert hidden["binary_weight"][0, 5, 5] == 0


def test_labels_of_the_built_in_scene_are_mostly_right(default_model) -> None:
    network = Network(default_model, threads=1)
    hits: list[bool] = []
    wrong_background: list[float] = []
    for seed in range(3):
        source = DemoSource(f"demo://?seed={seed}&frames=12")
        frames = [source.read() for _ in range(12)]
        images = [cv2.resize(f.image, SIZE[::-1], interpolation=cv2.INTER_AREA) for f in frames]
        found, _ = labelled(watch(images, network, EngineConfig()), keep=3)
        assert found
        for f in found:
            truth = cv2.resize(frames[f.position].truth, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
            assert set(np.unique(f.ids)) - {0} <= set(np.flatnonzero(f.kinds))
            for value in np.flatnonzero(f.kinds == Kind.MOVING):
                mask = f.ids == value
                objects = [truth == o for o in np.unique(truth) if o]
                hits.append(max((mask & o).sum() / (mask | o).sum() for o in objects) >= 0.5)
            wrong_background.append(float((truth[f.ids == 0] > 0).mean()))
    assert len(hits) >= 9
    assert np.mean(hits) >= 0.6
    assert np.mean(wrong_background) < 0.03
