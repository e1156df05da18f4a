"""A real engine on built-in live scenes, small and slow enough for a busy machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig
from engine.perceive.network import Network
from streaming.lane_factory import LaneFactory
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.session import Session
from streaming.status import EngineStatus
from tests.streaming.scenes import eventually

SCENE = "demo://?live=1&size=120x214&fps=10&frames=0"


@dataclass
class Running:
    network: Network
    session: Session
    factory: LaneFactory
    publisher: Publisher
    config: EngineConfig
    status: EngineStatus

    def frames(self, source: str) -> int:
        return next(status.frames for status in self.session.sources() if status.name == source)

    def goes_on(self, source: str, timeout_s: float = 60.0) -> bool:
        """Whether another frame of `source` is published in time."""
        before = self.frames(source)
        return eventually(lambda: self.frames(source) > before, timeout_s)


@contextmanager
def running_engine(model: Path, *sources: str) -> Iterator[Running]:
    """An engine with a live scene per name, publishing; ended at exit.

    Args:
        sources: names, or NAME=URI of others, which need not deliver.
    """
    names = [source for source in sources if "=" not in source]
    config, network = EngineConfig(), Network(model)
    factory = LaneFactory(config, network)
    lanes = factory.open_all([source if "=" in source else f"{source}={SCENE}" for source in sources])
    report = Report({"name": network.name, "hash": network.hash, "generation": network.generation})
    with Publisher("tcp://127.0.0.1:0") as publisher:
        session = Session(lanes, report, open_lane=factory.open, publisher=publisher)
        thread = threading.Thread(target=session.run)
        running = Running(network, session, factory, publisher, config, EngineStatus(session, report, publisher))
        thread.start()
        try:
            assert all(eventually(lambda name=name: running.frames(name) > 0, 120) for name in names)
            yield running
        finally:
            session.stop()
            thread.join(60)
            assert not thread.is_alive()
