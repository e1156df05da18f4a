"""What is kept while a frame waits for its decision must give the scenes that working it out anew would give."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.compose import Picture, boxes_and_areas
from engine.config import EngineConfig
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.scene import Scene
from engine.sighting import Sightings, sightings_of
from streaming.sources import open_source
from tests.engine.test_propose import GRID, disc, percepts

FRAME = (120, 214)
FRAMES = 24


class Forgetful(Pipeline):
    """Measures every mask and draws every picture again each time it is asked for."""

    def decide(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        self._ids.sightings = Sightings()
        for undecided in self._window.values():
            undecided.pictures.clear()
        return super().decide(*arguments, **keywords)


@pytest.fixture(scope="module")
def network(default_model: Path) -> Network:
    return Network(default_model)


def assert_alike(kept: Scene, anew: Scene) -> None:
    for field in dataclasses.fields(Scene):
        if field.name not in ("labels", "evidence"):
            assert getattr(kept, field.name) == getattr(anew, field.name), field.name
    assert np.array_equal(kept.labels, anew.labels)


def test_scenes_are_those_of_an_engine_that_keeps_nothing(network: Network) -> None:
    keeping, forgetful = Pipeline(EngineConfig(), network), Forgetful(EngineConfig(), network)
    walked_again = 0
    with open_source(f"demo://?seed=120&frames={FRAMES}&size={FRAME[0]}x{FRAME[1]}") as source:
        for frame in source:
            seen = keeping.perceive(frame)
            before = {walked.frame_index: walked.members for walked in keeping._walk}
            kept, anew = keeping.decide(frame, seen), forgetful.decide(frame, seen)
            walked_again += any(before.get(w.frame_index, w.members) != w.members for w in keeping._walk)
            assert len(kept) == len(anew)
            for a, b in zip(kept, anew, strict=True):
                assert_alike(a, b)
    for a, b in zip(keeping.flush(), forgetful.flush(), strict=True):
        assert_alike(a, b)
    assert walked_again  # otherwise this video shows nothing


def overlapping() -> tuple[Picture, list[int], tuple[int, ...]]:
    masks = [disc(30, 45, 12), disc(30, 60, 12), disc(10, 90, 5), np.zeros(GRID, bool)]
    background = np.where(masks[0] | masks[1] | masks[2], 0.3, 0.9)
    found = percepts(masks, [0.9, 0.8, 0.7, 0.6], background)
    values = [7, 3, 40, 9]
    return Picture.of(found, (0, 1, 2, 3), values, FRAME), values, (0, 1, 2, 3)


def test_a_picture_under_other_names_is_the_picture_drawn_under_them() -> None:
    picture, values, members = overlapping()
    found = percepts(
        [disc(30, 45, 12), disc(30, 60, 12), disc(10, 90, 5), np.zeros(GRID, bool)],
        [0.9, 0.8, 0.7, 0.6],
        np.where(disc(30, 45, 12) | disc(30, 60, 12) | disc(10, 90, 5), 0.3, 0.9),
    )
    assert picture.called(values) is picture
    names = [3, 7, 65535, 1]
    again = picture.called(names)
    drawn = Picture.of(found, members, names, FRAME)
    assert np.array_equal(again.labels, drawn.labels)
    assert again.labels.dtype == np.uint16
    assert again.extents == drawn.extents
    assert set(again.extents) == {3, 7, 65535}  # the empty mask owns nothing


def test_extents_are_those_of_every_pixel() -> None:
    labels = np.random.default_rng(4).integers(0, 5, (37, 53)).astype(np.uint16)
    labels[5:20, 10:40] = 2
    found = boxes_and_areas(labels, [2, 4, 300])
    for value in (2, 4):
        y, x = np.nonzero(labels == value)
        assert found[value] == ((x.min(), y.min(), x.max() + 1, y.max() + 1), len(y))
    assert set(found) == {2, 4}


def test_a_mask_measured_among_others_is_the_mask_measured_alone() -> None:
    rng = np.random.default_rng(2)
    masks = [disc(30, 45, 12), disc(30, 60, 9), np.zeros(GRID, bool), disc(10, 90, 5)]
    found = dataclasses.replace(
        percepts(masks, [0.9, 0.8, 0.7, 0.6], rng.random(GRID).astype(np.float32)),
        embedding=rng.normal(size=(4, *GRID)).astype(np.float32),
        image=rng.integers(0, 255, (*GRID, 3), np.uint8),
    )
    assert found.embedding is not None
    for member, sighting in enumerate(sightings_of(found, (0, 1, 2, 3))):
        (alone,) = sightings_of(found, (member,))
        mask = masks[member]
        assert sighting.area == alone.area == mask.sum()
        assert np.array_equal(sighting.place, alone.place)
        assert sighting.foreground == alone.foreground
        if not mask.any():
            assert sighting.embedding is None
            assert sighting.look is None
            continue
        assert np.array_equal(sighting.embedding, alone.embedding)
        assert np.array_equal(sighting.look, alone.look)
        assert sighting.place == pytest.approx(np.argwhere(mask).mean(axis=0))
        assert sighting.foreground == pytest.approx(1.0 - found.background[mask].mean(), abs=1e-6)
        assert sighting.embedding == pytest.approx(found.embedding[:, mask].mean(axis=1), abs=1e-6)


def test_measurements_are_kept_until_their_frame_is_final() -> None:
    found = percepts([disc(30, 45, 12), disc(10, 90, 5)], [0.9, 0.8], np.full(GRID, 0.5))
    sightings = Sightings()
    first = sightings.of(3, found, (0,))
    assert sightings.of(3, found, (1, 0))[1] is first[0]
    # Another look at a frame of the same number is another measurement.
    assert sightings.of(3, dataclasses.replace(found), (0,))[0] is not first[0]
    sightings.settle(3)
    assert sightings.of(3, found, (0,))[0] is not first[0]
