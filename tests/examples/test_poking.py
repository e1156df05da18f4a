"""Which object is touched, and where the push goes."""

from dataclasses import dataclass

import numpy as np
import pytest

from examples.grasping.grasp import footprint
from examples.grasping.poking import choose, poke_of, poke_place
from tests.examples.trays import LIMITS, overhead, prism, rectangle, seen


@dataclass
class Item:
    id: int
    uncertainty: float
    novelty: float = 0.0


def test_the_most_doubtful_object_is_touched_and_then_left_alone_for_two_turns() -> None:
    items = [Item(1, 0.2), Item(2, 0.7), Item(3, 0.1, novelty=0.9), Item(4, 0.3)]
    rng = np.random.default_rng(0)
    poked: list[int] = []
    for _ in range(5):
        poked.append(choose("uncertain", items, poked, rng))
    assert poked == [3, 2, 4, 3, 2]
    assert choose("uncertain", items[:1], [1], rng) == 1, "the only one there is"


def test_random_takes_all_alike_and_passive_none() -> None:
    items = [Item(1, 0.0), Item(2, 0.9), Item(3, 0.4)]
    rng = np.random.default_rng(0)
    drawn = [choose("random", items, [], rng) for _ in range(600)]
    assert all(150 < drawn.count(item.id) < 250 for item in items)
    assert choose("passive", items, [], rng) is None
    assert choose("random", [], [], rng) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_push_begins_beside_the_object_ends_beyond_its_border_and_stays_in_the_tray(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view, top = overhead(), 0.04
    outline = rectangle(tuple(rng.uniform((-0.12, -0.08), (0.12, 0.08))), (0.07, 0.03), rng.uniform(0, np.pi))
    mask = prism(view, outline, top)
    found = footprint(seen(view, (mask, top)), mask, LIMITS)
    poke = poke_of(found, LIMITS)
    start, end = np.array([poke.x0, poke.y0]), np.array([poke.x1, poke.y1])
    line = start + np.linspace(0, 1, 100)[:, None] * (end - start)
    gaps = np.linalg.norm(line[:, None] - found.points[None, :, :2], axis=2).min(axis=1)
    assert gaps[0] > 0.015
    assert gaps.min() < 0.004, "it touches"
    for at in (start, end):
        assert LIMITS.x_m[0] < at[0] < LIMITS.x_m[1]
        assert LIMITS.y_m[0] < at[1] < LIMITS.y_m[1]
    assert 0 < poke.z < top


def test_a_push_at_a_place_crosses_it() -> None:
    poke = poke_place(0.02, -0.03, LIMITS, 0.8)
    start, end = np.array([poke.x0, poke.y0]), np.array([poke.x1, poke.y1])
    line = start + np.linspace(0, 1, 500)[:, None] * (end - start)
    assert np.linalg.norm(line - (0.02, -0.03), axis=1).min() < 0.001
