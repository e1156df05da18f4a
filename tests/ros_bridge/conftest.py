"""A ROS 1 master, a DDS domain and a Zenoh endpoint for each test that asks."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ros_bridge.graphs import Graph, dds_graph, ros1_environment, ros1_missing, start_roscore, zenoh_graph


@pytest.fixture(scope="session")
def roscore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real ROS 1 master; skips where ROS 1 is not installed."""
    if (reason := ros1_missing()) is not None:
        pytest.skip(reason)
    started: tuple[subprocess.Popen, str] | None = None
    for _ in range(2):
        started = started or start_roscore(tmp_path_factory.mktemp("ros"))
    assert started is not None, "roscore does not start"
    process, uri = started
    try:
        yield uri
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def ros1(roscore: str, tmp_path: Path) -> Iterator[Graph]:
    yield from closing(Graph("rospy", ros1_environment(roscore, tmp_path), [], []))


@pytest.fixture
def dds() -> Iterator[Graph]:
    pytest.importorskip("cyclonedds", reason="needs the ros extra on a machine Cyclone DDS is built for")
    yield from closing(dds_graph())


@pytest.fixture
def zenoh() -> Iterator[Graph]:
    yield from closing(zenoh_graph())


@pytest.fixture(params=["dds", "zenoh", "ros1"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """Each kind of graph in turn."""
    return request.getfixturevalue(request.param)


def closing(graph: Graph) -> Iterator[Graph]:
    try:
        yield graph
    finally:
        graph.close()
