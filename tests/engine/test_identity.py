"""Identities: kept along motion, kept through absence, never reused."""

import dataclasses

import numpy as np

from engine.config import IdentityConfig
from engine.identity import IdentityBook
from engine.percepts import Percepts
from tests.engine.test_propose import GRID, disc, percepts


def frame(
    centres: list[tuple[float, float]],
    flow: tuple[float, float] = (0, 0),
    looks: list[list[float]] | None = None,
) -> Percepts:
    masks = [disc(*centre, 7) for centre in centres]
    background = np.full(GRID, 0.9)
    for mask in masks:
        background[mask] = 0.1
    embedding = None
    if looks is not None:
        embedding = np.zeros((2, *GRID), np.float32)
        for mask, look in zip(masks, looks, strict=True):
            embedding[:, mask] = np.asarray(look)[:, None]
    field = np.empty((2, *GRID), np.float32)
    field[0], field[1] = flow
    found = percepts(masks, [0.9] * len(masks), background)
    return dataclasses.replace(found, flow=field, residual=field, embedding=embedding)


def ids(book: IdentityBook, index: int, found: Percepts) -> list[int]:
    return [track.id for track in book.step(index, found, tuple(range(len(found.masks))))]


def test_two_objects_keep_their_ids_in_any_candidate_order() -> None:
    book = IdentityBook(IdentityConfig())
    first = ids(book, 0, frame([(20, 20), (40, 80)]))
    assert ids(book, 1, frame([(40, 80), (20, 20)])) == first[::-1]


def test_flow_carries_an_object_farther_than_its_own_size() -> None:
    book = IdentityBook(IdentityConfig())
    first = ids(book, 0, frame([(30, 20)]))
    # Moved 30 cells to the right: the backward flow says where it came from.
    assert ids(book, 1, frame([(30, 50)], flow=(-30, 0))) == first
    assert ids(book, 2, frame([(30, 80)], flow=(0, 0))) != first


def test_an_object_that_left_is_recognised_by_its_looks() -> None:
    book = IdentityBook(IdentityConfig())
    first = ids(book, 0, frame([(20, 20)], looks=[[1, 0]]))
    for index in range(1, 6):
        ids(book, index, frame([], looks=[]))
    assert ids(book, 6, frame([(45, 95)], looks=[[1, 0.05]])) == first
    assert ids(book, 7, frame([(10, 50), (45, 95)], looks=[[0, 1], [1, 0.05]]))[1:] == first


def test_a_dropped_frame_does_not_make_everybody_somebody_who_was_away() -> None:
    for gap in (1, 2, 5):
        book = IdentityBook(IdentityConfig())
        first = ids(book, 0, frame([(20, 20)], looks=[[1, 0]]))
        # Alike, but elsewhere, in the very next processed frame: nobody jumps.
        assert ids(book, gap, frame([(45, 95)], looks=[[1, 0]])) != first


def test_forgotten_ids_are_never_given_again() -> None:
    book = IdentityBook(IdentityConfig(forget_after_frames=3))
    seen = set()
    for index in range(0, 100, 10):
        new = set(ids(book, index, frame([(30, 30)])))
        assert not new & seen
        seen |= new
    book.reset()
    assert not set(ids(book, 101, frame([(30, 30)]))) & seen


def test_looking_ahead_changes_nothing_and_promises_the_ids_that_come() -> None:
    book = IdentityBook(IdentityConfig())
    ids(book, 0, frame([(20, 20)]))
    ahead = book.look_ahead()
    promised = ids(ahead, 1, frame([(20, 20), (40, 80)]))
    again = ids(book.look_ahead(), 1, frame([(20, 20), (40, 80)]))
    assert again == promised
    assert ids(book, 1, frame([(20, 20), (40, 80)])) == promised


def test_labels_stay_16_bit_and_distinct_when_ids_outgrow_them() -> None:
    book = IdentityBook(IdentityConfig(forget_after_frames=2))
    book._allocator.next_id = 0x10000 - 1
    tracks = book.step(0, frame([(20, 20), (40, 80), (50, 20)]), (0, 1, 2))
    assert [track.id for track in tracks] == [0xFFFF, 0x10000, 0x10001]
    assert all(1 <= track.label <= 0xFFFF for track in tracks)
    assert len({track.label for track in tracks}) == 3
