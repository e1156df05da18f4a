"""The simulated cell over its services, and the whole of it with an engine that dies."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet", reason="needs the extra sim")
from examples.grasping.__main__ import main
from examples.grasping.cell import WORKSPACE, Cell
from examples.grasping.engine_process import EngineProcess
from examples.grasping.grasp import plan
from examples.grasping.planner import Planner, Step
from examples.grasping.poking import poke_of
from examples.grasping.robot import Robot, RobotError
from examples.grasping.station import Station
from streaming.subscriber import MaskSubscriber
from tests.streaming.scenes import eventually

WAIT_S = 600.0


@contextmanager
def beside(station: Station, work: threading.Thread) -> Iterator[None]:
    """`work` in its thread while the station runs in this one; the block runs when both have ended."""
    work.start()
    station.run()
    work.join(WAIT_S)
    assert not work.is_alive()
    yield


def test_a_scene_follows_from_its_seed_and_depth_is_metric() -> None:
    pictures = []
    for seed in (3, 3, 4):
        with Cell(seed, 3) as cell:
            picture = cell.fixed()
            pictures.append(picture.image)
            points = cell.view.points(picture.depth)
            truth = cell.truth(picture)
            assert set(np.unique(truth)) == set(range(len(cell.things) + 1))
            x, y, z = (points[..., axis] for axis in range(3))
            (x0, x1), (y0, y1) = WORKSPACE.x_m, WORKSPACE.y_m
            floor = (x > x0 + 0.02) & (x < x1 - 0.02) & (y > y0 + 0.02) & (y < y1 - 0.02) & (truth == 0)
            assert np.abs(z[floor]).max() < 0.003
            assert (z[truth > 0] > -0.002).all()
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()


def test_orders_over_http_move_things_and_old_pictures_are_refused() -> None:
    refused: list[str] = []
    held: list[bool] = []
    moved: list[float] = []

    def work() -> None:
        robot = Robot(station.url)
        try:
            for seen_ns in (0, time.time_ns() - round(3600e9)):
                with pytest.raises(RobotError) as error:
                    robot.skip(seen_ns)
                refused.append(str(error.value))
            depth, view = robot.depth()
            points = view.points(depth)
            labels = station.cell.truth(station.cell.fixed())
            before = points[labels == 1].mean(axis=0)
            grasps = [plan(points, labels == label, robot.limits()) for label in np.unique(labels)[1:]]
            best = min((grasp for grasp in grasps if grasp is not None), key=lambda grasp: grasp.cost)
            assert eventually(lambda: robot.state().settled_ns < time.time_ns(), WAIT_S)
            held.append(robot.grasp(best, time.time_ns()))
            moved.append(float(before[2]))
        finally:
            station.stop()

    with Station([1], 2, "solids", max_age_s=WAIT_S) as station, beside(station, threading.Thread(target=work)):
        assert "older than the latest motion" in refused[0]
        assert len(refused) == 2
        assert held == [True]
        assert len(station.cell.things) == 1
        assert [entry["order"] for entry in station.log] == ["grasp"]


def test_a_push_moves_its_object_and_leaves_it_in_the_tray() -> None:
    from examples.grasping.grasp import footprint

    shown: list[int] = []
    with Cell(5, 1, "solids", show=lambda: shown.append(1)) as cell:
        picture = cell.fixed()
        before = footprint(cell.view.points(picture.depth), cell.truth(picture) == 1, WORKSPACE)
        cell.poke(poke_of(before, WORKSPACE))
        picture = cell.fixed()
        after = footprint(cell.view.points(picture.depth), cell.truth(picture) == 1, WORKSPACE)
    assert np.linalg.norm(after.centroid - before.centroid) > 0.01
    assert len(shown) >= 10, "motion that nobody sees teaches nothing"


@pytest.mark.slow
def test_the_engine_killed_in_mid_run_and_started_again(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/masks"
    steps: list[Step] = []
    counts: dict[str, int] = {}

    def orders() -> int:
        return len(station.log)

    def work() -> None:
        try:
            assert eventually(lambda: orders() >= 1, WAIT_S)
            engine.kill()
            # What was on its way may still be used while it is fresh.
            assert eventually(lambda: [step.reason for step in steps[-3:]] == ["no masks come"] * 3, WAIT_S)
            counts["dark"] = orders()
            seen = len(steps)
            assert eventually(lambda: len(steps) >= seen + 8, WAIT_S)
            assert all(step.deed == "still" for step in steps[seen:])
            counts["still dark"] = orders()
            engine.start()
            assert eventually(lambda: orders() > counts["dark"], WAIT_S)
            counts["after"] = orders()
        finally:
            station.stop()

    def plan_on() -> None:
        with MaskSubscriber(endpoint, kind="provisional", source="fixed") as masks:
            planner = Planner(masks, Robot(station.url), max_age_s=60.0)
            while not station.stopped:
                steps.append(planner.step())

    with Station([11, 12, 13], 4, max_age_s=60.0) as station:
        engine = EngineProcess([f"fixed={station.url}/video"], endpoint)
        with engine:
            planning = threading.Thread(target=plan_on)
            planning.start()
            with beside(station, threading.Thread(target=work)):
                pass
            planning.join(WAIT_S)
    assert counts["dark"] == counts["still dark"] < counts["after"]


@pytest.mark.slow
def test_one_command_grasps_films_and_tells(tmp_path: Path) -> None:
    film, told = tmp_path / "run.mp4", tmp_path / "run.json"
    arguments = ["--scenes", "1", "--count", "2", "--max-age", "60", "--video", str(film), "--json", str(told)]
    assert main(arguments) == 0
    log = json.loads(told.read_text())
    assert log
    assert {entry["order"] for entry in log} <= {"grasp", "skip"}
    assert film.stat().st_size > 10_000
