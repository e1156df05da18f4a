"""The fast losses against definitions written pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compose import render_labels
from engine.percepts import Percepts
from engine.select.background import background_loss
from engine.select.consistency import consistency_loss
from engine.select.flow_loss import explained_flow_loss, residual_flow
from engine.select.masks import pack, sums_inside
from engine.select.reference import (
    slow_background_loss,
    slow_consistency_loss,
    slow_flow_loss,
    slow_owners,
    slow_source,
)
from engine.select.registration import register, registered_flow_loss
from engine.select.render import label_owners, render
from engine.select.warp import as_unions, gather, source_pixels

CLAMP = 0.01
SHAPES = st.sampled_from([(1, 1), (1, 7), (8, 8), (9, 13), (5, 26)])


def random_frame(rng, shape, n):
    """Masks (some empty, some full), combinations of them, background and two flow fields."""
    masks = rng.random((n, *shape)) < rng.choice([0.0, 0.2, 0.5, 1.0], size=(n, 1, 1))
    combinations = [()] + [tuple(np.flatnonzero(rng.random(n) < 0.4).tolist()) for _ in range(int(rng.integers(0, 5)))]
    background = rng.random(shape).astype(np.float32)
    flow = rng.normal(0, 2, size=(2, *shape)).astype(np.float32)
    residual = rng.normal(0, 2, size=(2, *shape)).astype(np.float32)
    return masks, combinations, background, flow, residual


def drawn(masks, combinations, background):
    packed = pack(masks)
    loss = background_loss(background, packed, CLAMP)
    return packed, loss, render(packed, combinations, loss.mean_logits)


frames = given(seed=st.integers(0, 2**32 - 1), shape=SHAPES, n=st.integers(0, 6))
quick = settings(max_examples=60, deadline=None)


@quick
@frames
def test_packed_masks_count_and_sum_like_plain_ones(seed, shape, n):
    rng = np.random.default_rng(seed)
    masks, *_ = random_frame(rng, shape, n)
    values = rng.normal(size=(3, *shape))
    packed = pack(masks)
    np.testing.assert_array_equal(packed.areas, masks.sum(axis=(1, 2)))
    expected = np.array([[v[m].sum() for v in values] for m in masks]).reshape(n, 3)
    np.testing.assert_allclose(sums_inside(packed.words, values.reshape(3, -1)), expected, atol=1e-9)


@quick
@frames
def test_background_loss_is_the_cross_entropy_of_the_union(seed, shape, n):
    rng = np.random.default_rng(seed)
    masks, combinations, background, _, _ = random_frame(rng, shape, n)
    background.flat[0] = rng.choice([0.0, 1.0])
    _, loss, rendered = drawn(masks, combinations, background)
    expected = [slow_background_loss(background, masks[list(members)].any(axis=0), CLAMP) for members in combinations]
    np.testing.assert_allclose(loss.of_unions(rendered.unions), expected, atol=1e-5)
    for mask, weight in zip(masks, loss.weights, strict=True):
        assert loss.empty + weight == pytest.approx(slow_background_loss(background, mask, CLAMP), abs=1e-5)


def test_background_loss_is_additive_over_disjoint_masks():
    rng = np.random.default_rng(1)
    regions = rng.integers(0, 5, size=(20, 30))
    masks = np.array([regions == i for i in range(4)])
    background = rng.random((20, 30)).astype(np.float32)
    loss = background_loss(background, pack(masks), CLAMP)
    expected = slow_background_loss(background, masks[[0, 2, 3]].any(axis=0), CLAMP)
    assert loss.empty + loss.weights[[0, 2, 3]].sum() == pytest.approx(expected, abs=1e-5)


@quick
@frames
def test_pixels_belong_to_the_mask_that_looks_least_like_background(seed, shape, n):
    masks, combinations, background, _, _ = random_frame(np.random.default_rng(seed), shape, n)
    packed, loss, rendered = drawn(masks, combinations, background)
    for k, members in enumerate(combinations):
        owners = rendered.owners[k].reshape(shape)
        # The slow definition compares means in double precision; near-equal ones may swap.
        means = loss.mean_logits[list(members)]
        if len(np.unique(np.round(means, 5))) == len(members):
            np.testing.assert_array_equal(owners, slow_owners(masks, members, background, CLAMP))
        np.testing.assert_array_equal(owners >= 0, masks[list(members)].any(axis=0))
        np.testing.assert_array_equal(owners, label_owners(packed, members, loss.mean_logits))
        selected = (rendered.choices >> k & 1).astype(bool).reshape(shape)
        np.testing.assert_array_equal(selected, owners >= 0)
        assert rendered.areas[k] == (owners >= 0).sum()


def test_the_published_label_map_has_the_same_owners():
    rng = np.random.default_rng(2)
    masks = rng.random((6, 12, 16)) < 0.3
    background = rng.random((12, 16)).astype(np.float32)
    percepts = Percepts(masks, np.ones(6, np.float32), background, None, None, None, masks.astype(np.float32) - 0.5)
    packed = pack(masks)
    owners = label_owners(packed, (0, 2, 3, 5), background_loss(background, packed, CLAMP).mean_logits)
    published = render_labels(percepts, (0, 2, 3, 5), [1, 3, 4, 6], masks.shape[1:])
    np.testing.assert_array_equal(published.astype(int) - 1, owners)


def test_sixty_four_combinations_fill_every_bit():
    combinations = [(k % 2,) if k % 3 else () for k in range(64)]
    masks = np.array([np.eye(8, 9) > 0, np.eye(8, 9) == 0])
    rendered = render(pack(masks), combinations, np.zeros(2))
    np.testing.assert_array_equal(as_unions(rendered.choices, 64), rendered.unions)


@quick
@frames
def test_the_past_moves_to_where_its_content_went(seed, shape, n):
    rng = np.random.default_rng(seed)
    flow = random_frame(rng, shape, n)[3]
    source = source_pixels(flow).reshape(shape)
    row, column, inside = slow_source(flow)
    np.testing.assert_array_equal(source >= 0, inside)
    np.testing.assert_array_equal(source[inside], (row * shape[1] + column)[inside])


def test_a_flow_that_is_not_a_number_points_nowhere():
    assert (source_pixels(np.full((2, 3, 4), np.nan, np.float32)) == -1).all()


@quick
@frames
def test_consistency_is_minus_the_overlap_of_selections(seed, shape, n):
    rng = np.random.default_rng(seed)
    past_masks, past, background, _, _ = random_frame(rng, shape, n)
    choices = drawn(past_masks, past, background)[2].choices
    masks, combinations, background, flow, _ = random_frame(rng, shape, n)
    unions = drawn(masks, combinations, background)[2].unions
    for warp, both_empty in ((None, -1.0), (flow, -1.0), (flow, 0.0)):
        source = None if warp is None else source_pixels(warp)
        table = consistency_loss(choices, len(past), unions, source, both_empty)
        expected = [
            [
                slow_consistency_loss(past_masks[list(j)].any(axis=0), masks[list(k)].any(axis=0), warp, both_empty)
                for k in combinations
            ]
            for j in past
        ]
        np.testing.assert_allclose(table, expected, atol=1e-12)


@quick
@frames
def test_flow_loss_is_what_the_selections_leave_unexplained(seed, shape, n):
    rng = np.random.default_rng(seed)
    past_masks, past, background, _, _ = random_frame(rng, shape, n)
    choices = drawn(past_masks, past, background)[2].choices
    masks, combinations, background, flow, residual = random_frame(rng, shape, n)
    packed, _, rendered = drawn(masks, combinations, background)
    measured = residual_flow(residual)
    if measured.is_still(0.0):
        return
    moved = gather(choices, source_pixels(flow))
    table = explained_flow_loss(measured, packed, rendered, moved, len(past))
    for j, past_members in enumerate(past):
        for k in range(len(combinations)):
            expected = slow_flow_loss(
                flow,
                residual,
                masks,
                rendered.owners[k].reshape(shape),
                past_masks[list(past_members)].any(axis=0),
                0.0,
            )
            assert table[j, k] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def moving_square(shift=(3, -2), shape=(40, 60)):
    """A textured square that moved by `shift` on a textured background that did not."""
    rng = np.random.default_rng(3)
    past_image = rng.integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    past_mask = np.zeros(shape, bool)
    past_mask[15:27, 20:34] = True
    dx, dy = shift
    mask = np.roll(past_mask, (dy, dx), axis=(0, 1))
    image = past_image.copy()
    image[mask] = past_image[past_mask]
    flow = np.zeros((2, *shape), np.float32)
    flow[:, mask] = np.array([[-dx], [-dy]])
    return past_mask, past_image, mask, image, flow


def test_selecting_the_moving_object_in_both_frames_explains_the_flow():
    past_mask, _, mask, _, flow = moving_square()
    background = np.full(mask.shape, 0.5, np.float32)
    decoy = np.zeros_like(mask)
    decoy[2:10, 2:12] = True
    packed, _, rendered = drawn(np.array([mask, decoy]), [(), (0,), (1,)], background)
    past = drawn(np.array([past_mask]), [(), (0,)], background)[2]
    measured = residual_flow(flow)
    table = explained_flow_loss(measured, packed, rendered, gather(past.choices, source_pixels(flow)), past_count=2)
    assert table[1, 1] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(table[:, 0], 1.0, rtol=1e-5)
    assert table[0, 1] > 0.5
    assert table[1, 2] > 0.9


def test_little_motion_says_nothing():
    assert residual_flow(np.full((2, 8, 8), 5.0, np.float32)).is_still(0.25)
    noise = np.random.default_rng(4).normal(0, 0.05, size=(2, 8, 8))
    assert residual_flow(noise).is_still(0.25)
    assert not residual_flow(20 * noise).is_still(0.25)


def test_registration_by_colour_finds_the_shift():
    past_mask, past_image, mask, image, _ = moving_square(shift=(3, -2))
    dx, dy = register(pack(mask[None]).words[0], image, pack(past_mask[None]).words[0], past_image)
    assert dx == pytest.approx(-3, abs=0.2)
    assert dy == pytest.approx(2, abs=0.2)


def test_the_registered_form_prefers_the_same_selection():
    past_mask, past_image, mask, image, flow = moving_square()
    background = np.full(mask.shape, 0.5, np.float32)
    packed, _, rendered = drawn(mask[None], [(), (0,)], background)
    past_packed = pack(past_mask[None])
    table = registered_flow_loss(
        residual_flow(flow), flow, packed, [(), (0,)], rendered, image, past_packed, [(), (0,)], past_image
    )
    np.testing.assert_allclose(table[:, 0], 1.0, rtol=1e-5)
    assert table[1, 1] < 0.1
    assert table[0, 1] > 0.5


def test_the_registered_form_takes_the_best_match_of_each_mask():
    """The table equals its formula put together from single registrations."""
    past_mask, past_image, mask, image, flow = moving_square()
    other = np.zeros_like(mask)
    other[30:38, 5:20] = True
    masks, past_masks = np.array([mask, other]), np.array([other, past_mask])
    combinations, past = [(0,), (0, 1)], [(0,), (0, 1)]
    packed, _, rendered = drawn(masks, combinations, np.full(mask.shape, 0.5, np.float32))
    past_packed = pack(past_masks)
    measured = residual_flow(flow)
    table = registered_flow_loss(measured, flow, packed, combinations, rendered, image, past_packed, past, past_image)
    for j, past_members in enumerate(past):
        for k, members in enumerate(combinations):
            outside = ~masks[list(members)].any(axis=0)
            expected = np.abs(flow[:, outside] - flow[:, outside].mean(axis=1)[:, None]).sum()
            for i in members:
                shifts = [register(packed.words[i], image, past_packed.words[a], past_image) for a in past_members]
                expected += min(np.abs(flow[:, masks[i]] - np.array(s)[:, None]).sum() for s in shifts)
            assert table[j, k] == pytest.approx(expected / measured.deviation, rel=1e-4)
