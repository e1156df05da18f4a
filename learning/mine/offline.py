"""The engine with all the time there is: every frame is decided by everything before and after it in its shot."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from engine.scene import Scene
from learning.mine.views import View

_SILENCE_NS = 1_000_000_000
"""As long without a frame in a recording that knows its times, and nothing is followed across it: as it was live."""


@dataclass
class Tally:
    """What the engine did on one recording.

    Attributes:
        frames: frames seen.
        exact: those decided as the optimum over their whole shot. forced: the rest, decided at the deadline.
        loss_bound: sum of what forced decisions can have cost at most, nats per pixel.
        lag_max: the longest a decision waited, frames.
        lost: frames the recording did not deliver, by cause.
        views: sources in it.
        megapixels: of all frames together.
    """

    frames: int = 0
    exact: int = 0
    forced: int = 0
    loss_bound: float = 0.0
    lag_max: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    views: list[str] = field(default_factory=list)
    megapixels: float = 0.0

    def take(self, scenes: Sequence[Scene]) -> None:
        """Count what was decided."""
        for commit in (scene.commit for scene in scenes if scene.commit is not None):
            self.exact += commit.exact
            self.forced += not commit.exact
            self.loss_bound += commit.loss_bound
            self.lag_max = max(self.lag_max, commit.lag)


def offline_config(config: EngineConfig, max_lag: int) -> EngineConfig:
    """The engine's configuration for recordings: one thread, and decisions that wait for agreement.

    With one thread the same frame gives the same masks whoever else works on the machine.

    Args:
        max_lag: frames an undecided frame is kept at most; only memory sets it. A decision forced there is
            certified as any other.
    """
    select = dataclasses.replace(config.select, lag=max_lag)
    perceive = dataclasses.replace(config.perceive, threads=1, opencv_threads=1)
    return dataclasses.replace(config, select=select, perceive=perceive)


def mine_view(view: View, config: EngineConfig, network: Network, recorder: Recorder, tally: Tally) -> None:
    """Show one view of a recording to a fresh pipeline and its finals to the recorder.

    Raises:
        SourceError: the view shows nothing.
    """
    pipeline = Pipeline(config, network)
    tally.views.append(view.name)
    before: Frame | None = None

    def settle(frame: Frame | None, scenes: list[Scene], gap: bool = False) -> None:
        finals = [scene for scene in scenes if scene.kind == "final"]
        tally.take(finals)
        recorder.step(frame, finals, gap=gap)

    try:
        for frame in view.frames():
            gap = view.timed and before is not None and _silence(before, frame)
            if gap:
                settle(None, pipeline.cut())
            settle(frame, pipeline.step(frame), gap)
            tally.frames += 1
            tally.megapixels += frame.image.shape[0] * frame.image.shape[1] / 1e6
            before = frame
        settle(None, pipeline.flush())
    finally:
        tally.lost += view.lost


def _silence(before: Frame, frame: Frame) -> bool:
    return (frame.pts_ns or 0) - (before.pts_ns or 0) > _SILENCE_NS
