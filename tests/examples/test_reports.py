"""What the tables of the two benchmarks count."""

import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra learn")
from benchmarks.acting import BEFORE, Lockstep
from benchmarks.acting import summarise as summarise_acting
from benchmarks.grasping import ENGINE, TRUTH, found_things, summarise
from examples.grasping.poking import POLICIES


def scene(held: list[bool], things: int) -> dict:
    return {"things": things, "attempts": [{"held": h, "planned": True, "found": 1, "visible": things} for h in held]}


def test_success_is_what_was_lifted_of_all_that_lay_there() -> None:
    found = {
        TRUTH: [scene([True, True, True], 3), scene([True, False], 2)],
        # An attempt that was never made is as bad as one that failed.
        ENGINE: [scene([True, False, True], 3), scene([], 2)],
    }
    summary = summarise(found)
    assert summary[TRUTH]["success"] == pytest.approx(4 / 5)
    assert summary[ENGINE]["success"] == pytest.approx(2 / 5)
    assert summary[ENGINE]["share_of_bound"] == pytest.approx(1 / 2)
    assert summary[TRUTH]["low"] <= summary[TRUTH]["success"] <= summary[TRUTH]["high"]


def test_a_thing_is_found_from_half_overlap_on() -> None:
    truth = np.zeros((10, 10), np.uint16)
    truth[:4, :4], truth[6:, 6:] = 1, 2
    half, less = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    half[:2, :4] = True
    less[6:, 6:7] = True
    assert found_things(truth, [half, less]) == (1, 2)
    assert found_things(truth, []) == (0, 2)


def test_a_policy_whose_network_was_not_promoted_ends_with_the_base() -> None:
    def ended(ap: float) -> dict:
        return {"AP": ap, "grasps": {"held": 3, "things": 4}}

    seed = {BEFORE: {"after": ended(20.0)}}
    for policy in POLICIES:
        seed[policy] = {"after": None, "retrained_AP": None, "promoted": False, "frames": 5}
    seed["uncertain"] = {"after": ended(26.0), "retrained_AP": 26.0, "promoted": True, "frames": 5}
    seed["random"]["retrained_AP"] = 19.0
    summary = summarise_acting({0: seed})
    assert summary["uncertain"]["AP"] == (26.0, 0.0)
    assert summary["random"]["AP"] == summary["passive"]["AP"] == (20.0, 0.0)
    assert summary["random"]["AP_without_gate"][0] == 19.0
    assert summary["passive"]["AP_without_gate"][0] == 20.0
    assert [summary[policy]["promoted"] for policy in POLICIES] == [1, 0, 0]


class Answers:
    """Scenes with given capture times, one per read."""

    def __init__(self, *ages_ns: int | None) -> None:
        self.ages_ns = list(ages_ns)
        self.waited = 0

    def read(self, timeout_s: float):
        self.waited += timeout_s > 0
        age_ns = self.ages_ns.pop(0) if self.ages_ns else None
        if age_ns is None:
            return None
        return type("Scene", (), {"t_capture_ns": time.time_ns() + age_ns})()


def test_the_cell_waits_for_the_engine_once_it_answers() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    hour_ns = 3600 * 10**9
    answers = Answers(None, hour_ns, -hour_ns, 2 * hour_ns, None)
    lockstep = Lockstep(answers)
    lockstep(image)
    assert (lockstep.answered, answers.waited) == (0, 0), "nobody is waited for before the engine has started"
    lockstep(image)
    assert lockstep.answered == 1
    lockstep(image)
    assert lockstep.answered == 2, "an answer about an earlier picture is not taken for one about this"
    lockstep(image)
    assert (lockstep.answered, lockstep.unanswered) == (2, 1)
