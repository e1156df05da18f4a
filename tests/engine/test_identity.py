"""Identities: kept along motion, kept through absence and crossings, never reused."""

import dataclasses

import numpy as np
import pytest

from engine.config import IdentityConfig
from engine.identity import IdentityBook
from engine.percepts import Percepts
from tests.engine.test_propose import GRID, disc, percepts

RED, GREEN, BLUE, GRAY = (40, 40, 200), (60, 180, 60), (200, 90, 30), (120, 120, 120)
RADIUS = 7
Item = tuple[float, float, tuple[int, int, int]]
"""Centre row, centre column and BGR colour of a disc."""


def frame(items: list[Item], flow: tuple[float, float] | None = (0, 0), together: bool = False) -> Percepts:
    """Discs in order, nearest last; `together` makes one candidate of all of them."""
    rng = np.random.default_rng(5)
    image = np.tile(np.array(GRAY, np.int16), (*GRID, 1))
    background = np.full(GRID, 0.9)
    masks: list[np.ndarray] = []
    for y, x, colour in items:
        mask = disc(y, x, RADIUS)
        masks = [other & ~mask for other in masks] + [mask]
        image[mask] = colour
        background[mask] = 0.1
    image += rng.integers(-6, 7, image.shape, np.int16)
    if together:
        masks = [np.any(masks, axis=0)]
    masks = [mask for mask in masks if mask.any()]
    found = percepts(masks, [0.9] * len(masks), background)
    field = None
    if flow is not None:
        field = np.empty((2, *GRID), np.float32)
        field[0], field[1] = flow
    return dataclasses.replace(found, flow=field, residual=field, image=image.astype(np.uint8))


def ids(book: IdentityBook, index: int, found: Percepts) -> list[int]:
    tracks = book.step(index, found, tuple(range(len(found.masks))))
    book.settle(index)
    return [track.id for track in tracks]


def watch(book: IdentityBook, first: int, count: int, items: list[Item]) -> list[int]:
    """The same scene for a while; ids in its last frame."""
    return [ids(book, first + k, frame(items)) for k in range(count)][-1]


def test_two_objects_keep_their_ids_in_any_candidate_order() -> None:
    book = IdentityBook(IdentityConfig())
    first = ids(book, 0, frame([(20, 20, RED), (40, 80, BLUE)]))
    assert ids(book, 1, frame([(40, 80, BLUE), (20, 20, RED)])) == first[::-1]


def test_flow_carries_an_object_farther_than_its_own_size() -> None:
    book = IdentityBook(IdentityConfig())
    first = ids(book, 0, frame([(30, 20, RED)]))
    # Moved 30 cells to the right: the backward flow says where it came from.
    assert ids(book, 1, frame([(30, 50, RED)], flow=(-30, 0))) == first
    assert ids(book, 2, frame([(30, 80, RED)])) != first


def test_an_object_returns_after_forty_frames_elsewhere_with_its_id() -> None:
    book = IdentityBook(IdentityConfig())
    red, blue = watch(book, 0, 12, [(20, 20, RED), (45, 60, BLUE)])
    assert watch(book, 12, 40, [(45, 60, BLUE)]) == [blue]
    assert ids(book, 52, frame([(45, 95, RED), (45, 60, BLUE)])) == [red, blue]


def test_a_stranger_does_not_inherit_the_id_of_who_left() -> None:
    book = IdentityBook(IdentityConfig())
    (red,) = watch(book, 0, 12, [(20, 20, RED)])
    watch(book, 12, 10, [])
    assert ids(book, 22, frame([(20, 20, GREEN)])) != [red]


def test_objects_that_cross_in_one_mask_leave_it_with_their_own_ids() -> None:
    book = IdentityBook(IdentityConfig())

    def scene(step: int) -> list[Item]:
        return [(30, 20 + 2 * step, RED), (33, 90 - 2 * step, BLUE)]

    before = watch(book, 0, 12, scene(0))
    for step in range(1, 35):
        near = abs(scene(step)[0][1] - scene(step)[1][1]) <= 2 * RADIUS
        after = ids(book, 11 + step, frame(scene(step), together=near))
    assert after == before


@pytest.mark.parametrize("leaver", [0, 1])
def test_when_only_one_leaves_the_common_mask_it_takes_only_its_own_id(leaver: int) -> None:
    book = IdentityBook(IdentityConfig())
    both: list[Item] = [(30, 40, RED), (30, 52, BLUE)]
    known = watch(book, 0, 12, both)
    for index in range(12, 18):
        ids(book, index, frame(both, together=True))
    assert watch(book, 18, 5, [both[leaver]]) == [known[leaver]]


def test_two_objects_that_look_the_same_keep_distinct_ids_and_their_places() -> None:
    book = IdentityBook(IdentityConfig())
    twins: list[Item] = [(20, 25, RED), (45, 90, RED)]
    known = watch(book, 0, 12, twins)
    assert len(set(known)) == 2
    watch(book, 12, 6, [])
    assert ids(book, 18, frame(twins)) == known


def test_a_view_too_small_to_recognise_is_recognised_soon_and_earlier_scenes_can_say_so() -> None:
    book = IdentityBook(IdentityConfig())
    (red,) = watch(book, 0, 12, [(30, 90, RED)])
    watch(book, 12, 20, [])
    entering = book.step(32, frame([(30, -5, RED)]), (0,))
    assert entering[0].id != red
    assert [ids(book, 33 + k, frame([(30, -3 + 3 * k, RED)], flow=(-3, 0))) for k in range(5)][-1] == [red]
    # Frame 32 is settled by now; a book in which it is not remembers who it was.
    late = IdentityBook(IdentityConfig())
    watch(late, 0, 12, [(30, 90, RED)])
    watch(late, 12, 20, [])
    shown = late.step(32, frame([(30, -5, RED)]), (0,))
    for k in range(5):
        late = late.look_ahead()
        late.step(33 + k, frame([(30, -3 + 3 * k, RED)], flow=(-3, 0)), (0,))
    assert [track.id for track in late.recognised_now(shown)] == [red]


def test_nobody_jumps_across_the_view_within_a_frame() -> None:
    book = IdentityBook(IdentityConfig())
    first = watch(book, 0, 3, [(20, 20, RED)])
    assert ids(book, 3, frame([(45, 95, RED)])) != first


def test_a_black_frame_does_not_wipe_what_is_known() -> None:
    book = IdentityBook(IdentityConfig())
    items: list[Item] = [(20, 20, RED), (40, 80, BLUE)]
    known = watch(book, 0, 12, items)
    assert ids(book, 12, frame([], flow=None)) == []
    assert ids(book, 13, frame(items, flow=None)) == known


def test_after_a_cut_nobody_is_known_by_the_place_of_the_old_shot() -> None:
    book = IdentityBook(IdentityConfig())
    (red,) = watch(book, 0, 12, [(30, 60, RED)])
    elsewhere = frame([], flow=None)
    other = np.random.default_rng(9).integers(0, 255, elsewhere.image.shape, np.uint8)
    assert ids(book, 12, dataclasses.replace(elsewhere, image=other)) == []
    # One frame into the new shot somebody of doubtful likeness stands where the red one stood.
    doubtful = (95, 95, 170)
    assert ids(book, 13, frame([(30, 60, doubtful)])) != [red]
    # The red one itself is known by its looks, wherever it is.
    assert ids(book, 14, frame([(30, 60, doubtful), (20, 100, RED)]))[1] == red


def test_a_light_switched_on_is_no_cut_in_places() -> None:
    book = IdentityBook(IdentityConfig())
    (red,) = watch(book, 0, 12, [(30, 60, RED)])
    lit = frame([], flow=None)
    brighter = np.clip(frame([(30, 60, RED)]).image * 1.9, 0, 255).astype(np.uint8)
    assert ids(book, 12, dataclasses.replace(lit, image=brighter)) == []
    assert ids(book, 13, dataclasses.replace(frame([(30, 60, RED)]), image=brighter)) == [red]


def test_reset_forgets_and_forgotten_ids_are_never_given_again() -> None:
    book = IdentityBook(IdentityConfig(forget_after_frames=3, carry_frames=3))
    seen: set[int] = set()
    for index in range(0, 100, 10):
        new = set(ids(book, index, frame([(30, 30, RED)])))
        assert not new & seen
        seen |= new
    book.reset()
    assert not set(ids(book, 101, frame([(30, 30, RED)]))) & seen


def test_an_acquaintance_is_remembered_until_it_ages_out() -> None:
    config = IdentityConfig(forget_after_frames=50)
    for away, same in ((45, True), (60, False)):
        book = IdentityBook(config)
        known = watch(book, 0, 12, [(30, 30, RED)])
        watch(book, 12, away, [])
        assert (ids(book, 12 + away, frame([(30, 30, RED)])) == known) is same


def test_ten_thousand_frames_of_passers_by_leave_a_bounded_memory() -> None:
    config = IdentityConfig(remembered=20, trusted_sightings=1, carry_frames=2)
    book = IdentityBook(config)
    rng = np.random.default_rng(0)
    looks = [frame([(rng.uniform(8, 56), rng.uniform(8, 104), tuple(rng.integers(0, 256, 3)))]) for _ in range(200)]
    seen: set[int] = set()
    for index in range(10_000):
        book = book.look_ahead()
        seen.update(ids(book, index, looks[int(rng.integers(len(looks)))]))
        assert len(book._tracks) <= config.remembered + 1
        assert all(len(track.memory.samples) <= config.memory_looks for track in book._tracks)
    assert len(seen) > 100
    assert not book._allocator.pending
    assert len(book._recognised) <= config.remembered


def test_who_is_out_of_sight_keeps_its_own_pixels_and_looks_and_no_whole_frame() -> None:
    book = IdentityBook(IdentityConfig())
    places = [(15.0, 15.0, RED), (15.0, 60.0, BLUE), (45.0, 20.0, GREEN), (45.0, 80.0, GRAY)]
    watch(book, 0, 12, places)
    watch(book, 12, 30, places[:1])  # longer than the others are carried along
    assert len(book._tracks) == 4
    for array in (array for track in book._tracks for array in (track.mask, track.memory.samples)):
        whole = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        assert whole.nbytes == array.nbytes


def test_looking_ahead_changes_nothing_and_promises_the_ids_that_come() -> None:
    book = IdentityBook(IdentityConfig())
    items: list[Item] = [(20, 20, RED), (40, 80, BLUE)]
    ids(book, 0, frame(items[:1]))
    promised = [track.id for track in book.look_ahead().step(1, frame(items), (0, 1))]
    again = [track.id for track in book.look_ahead().step(1, frame(items), (0, 1))]
    assert again == promised
    assert ids(book, 1, frame(items)) == promised


def test_without_colours_the_embedding_decides_between_equal_overlaps() -> None:
    def plain(masks: list[np.ndarray], looks: list[list[float]]) -> Percepts:
        embedding = np.zeros((2, *GRID), np.float32)
        for mask, look in zip(masks, looks, strict=True):
            embedding[:, mask] = np.asarray(look)[:, None]
        found = percepts(masks, [0.9] * len(masks), np.full(GRID, 0.9))
        return dataclasses.replace(found, flow=np.zeros((2, *GRID), np.float32), embedding=embedding)

    for swapped in (False, True):
        book = IdentityBook(IdentityConfig())
        first = ids(book, 0, plain([disc(30, 40, 7), disc(30, 56, 7)], [[2, 0], [0, 2]]))
        # Two halves of one blob between the old places: each overlaps both objects alike.
        upper, lower = np.zeros(GRID, bool), np.zeros(GRID, bool)
        upper[23:30, 34:63], lower[31:38, 34:63] = True, True
        looks = [[0.0, 2.0], [2.0, 0.0]] if swapped else [[2.0, 0.0], [0.0, 2.0]]
        assert ids(book, 1, plain([upper, lower], looks)) == (first[::-1] if swapped else first)


def test_labels_stay_16_bit_and_distinct_when_ids_outgrow_them() -> None:
    book = IdentityBook(IdentityConfig(forget_after_frames=2))
    book._allocator.next_id = 0x10000 - 1
    tracks = book.step(0, frame([(20, 20, RED), (40, 80, BLUE), (50, 20, GREEN)]), (0, 1, 2))
    assert [track.id for track in tracks] == [0xFFFF, 0x10000, 0x10001]
    assert all(1 <= track.label <= 0xFFFF for track in tracks)
    assert len({track.label for track in tracks}) == 3


@pytest.mark.parametrize(("colour", "same"), [(RED, True), (GREEN, False)])
def test_the_part_that_stays_of_an_object_seen_in_two_inherits_the_id(colour: tuple[int, int, int], same: bool) -> None:
    book = IdentityBook(IdentityConfig())
    (red,) = watch(book, 0, 15, [(30, 40, RED)])
    # Something thin in front parts it: for a while two masks beside each other, one with a new id.
    parts = watch(book, 15, 3, [(30, 40, RED), (30, 56, colour)])
    assert parts[0] == red
    assert parts[1] != red
    assert (watch(book, 18, 4, [(30, 56, colour)]) == [red]) is same


def test_twins_stay_two_when_one_leaves_and_both_were_known() -> None:
    book = IdentityBook(IdentityConfig())
    twins: list[Item] = [(30, 40, RED), (30, 56, RED)]
    known = watch(book, 0, 15, twins)
    assert watch(book, 15, 6, twins[1:]) == known[1:]
