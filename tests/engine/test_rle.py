"""Our run-length code against the library that defines it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.rle import RleError, decode_rle, encode_rle

coco = pytest.importorskip("pycocotools.mask")

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(sizes.flatmap(lambda size: arrays(bool, size)))
@settings(max_examples=200, deadline=None)
def test_any_mask_is_coded_as_the_library_does_and_comes_back(mask: np.ndarray) -> None:
    counts = encode_rle(mask)
    assert counts == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(decode_rle(counts, mask.shape), mask)


@pytest.mark.parametrize("box", [(0, 0, 7, 5), (3, 2, 300, 200), (293, 195, 300, 200), (100, 0, 101, 200)])
def test_runs_of_many_groups_and_boxes_at_every_border(box: tuple[int, int, int, int]) -> None:
    mask = np.zeros((200, 300), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_rle(mask, box) == encode_rle(mask) == expected
    np.testing.assert_array_equal(decode_rle(expected, mask.shape), mask)


def test_a_huge_mask_has_runs_of_five_groups() -> None:
    mask = np.zeros((1080, 1920), bool)
    mask[-1, -1] = True
    assert encode_rle(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert decode_rle(encode_rle(mask), mask.shape).sum() == 1


@pytest.mark.parametrize("counts", ["", "P", "ö", "~", " ", "oooooooooo0", "05", "4"])
def test_what_is_no_mask_of_that_size_is_refused(counts: str) -> None:
    with pytest.raises(RleError):
        decode_rle(counts, (2, 3))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30).filter(any))
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_codes_of_other_writers_are_read_as_the_library_reads_them(runs: list[int]) -> None:
    # Runs of no pixels are allowed, although we never write them after the first.
    size = (sum(runs), 1)
    theirs = coco.frPyObjects({"size": list(size), "counts": runs}, *size)
    mask = decode_rle(theirs["counts"].decode(), size)
    np.testing.assert_array_equal(mask, coco.decode(theirs).astype(bool))


@given(st.text(st.characters(min_codepoint=30, max_codepoint=130), max_size=12))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_is_a_mask(counts: str) -> None:
    try:
        mask = decode_rle(counts, (4, 3))
    except RleError:
        return
    assert mask.shape == (4, 3)
