"""How the objects and the camera of the built-in scene move: closed functions of time."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

Role = Literal["crosser", "stopper", "wanderer"]

# Everything repeats after this time, so that the scene has no end and any frame can be drawn on its own.
PERIOD_S = 10.0
# A crosser is out of view in both pauses of its schedule; a stopper stands still twice.
AWAY_S = ((2.6, 3.8), (7.2, 8.4))
STILL_S = ((1.6, 3.4), (5.8, 7.2))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an object is.

    Attributes:
        x, y: position of its foot in frame heights, the middle of the frame being (0, 0).
        clock: seconds it has been moving, constant while it stands.
        facing: 1 or -1; -1 mirrors it.
    """

    x: float
    y: float
    clock: float
    facing: int


class Path:
    """One object's closed path.

    Args:
        rng: decides the waypoints.
        role: crossers leave and come back, stoppers stand for a while, wanderers never do.
        reach: half the width of the view in frame heights.
        lane: height of the path (foot) in frame heights, positive is down.
        outside: how far beyond `reach` an object is surely out of view.
        sway: largest vertical departure from the lane.
    """

    def __init__(
        self, rng: np.random.Generator, role: Role, *, reach: float, lane: float, outside: float, sway: float
    ) -> None:
        self._turns_around = role == "crosser"
        if role == "crosser":
            # In at one side, out at the other, then back the same way.
            far = reach + outside
            side = float(rng.choice([-1.0, 1.0]))
            times = [0.0, *AWAY_S[0], *AWAY_S[1], PERIOD_S]
            begin = -0.35 * reach * side
            xs = [begin, far * side, far * side, -far * side, -far * side, begin]
            rests = [False, True, False, True, False]
        elif role == "stopper":
            times = [0.0, *STILL_S[0], *STILL_S[1], PERIOD_S]
            here, there = (
                rng.uniform(-0.25, 0.25) * reach,
                rng.choice([-1, 1]) * rng.uniform(0.35, 0.6) * reach,
            )
            begin = -np.sign(there) * rng.uniform(0.4, 0.7) * reach
            xs = [begin, here, here, there, there, begin]
            rests = [False, True, False, True, False]
        else:
            times = list(np.linspace(0, PERIOD_S, 7))
            xs = [*(np.array([0.55, -0.1, -0.6, -0.2, 0.3, 0.7]) * reach + rng.uniform(-0.12, 0.12, 6))]
            if rng.random() < 0.5:
                xs = [-x for x in xs]
            xs.append(xs[0])
            rests = [False] * 6
        ys = lane + rng.uniform(-sway, sway, len(times))
        ys[-1] = ys[0]
        for leg, resting in enumerate(rests):
            if resting:
                ys[leg + 1] = ys[leg]
        moving_s = np.where(rests, 0.0, np.diff(times))
        clock = np.concatenate([[0.0], np.cumsum(moving_s)])
        # Piecewise cubic without overshoot: flat stretches stay exactly flat.
        self._curve = PchipInterpolator(times, np.stack([xs, ys, clock], -1))
        self._side = float(np.sign(xs[1] - xs[0]))
        self._shift_s = 0.0

    def delayed(self, shift_s: float) -> "Path":
        """Start the schedule `shift_s` seconds earlier or later, so that objects differ."""
        self._shift_s = shift_s
        return self

    def at(self, time_s: float) -> Pose:
        """The pose `time_s` seconds after the start."""
        local_s = (time_s + self._shift_s) % PERIOD_S
        x, y, clock = self._curve(local_s)
        back = self._turns_around and AWAY_S[0][0] <= local_s < AWAY_S[1][0]
        side = self._side if self._turns_around else 1.0
        return Pose(float(x), float(y), float(clock), int(-side if back else side))


@dataclass(frozen=True, slots=True)
class CameraPath:
    """Slow pan, zoom and roll around the middle of the world.

    Attributes:
        phases: float [4], where the four oscillations start, in radians.
        still: True keeps the camera where it is.
    """

    phases: np.ndarray
    still: bool

    # Largest excursions: pan in frame heights, zoom as a factor, roll in radians.
    PAN_X = 0.16
    PAN_Y = 0.03
    ZOOM = 0.05
    ROLL = 0.018

    def matrix(self, time_s: float, size: tuple[int, int]) -> np.ndarray:
        """2x3 transform from world units (frame heights, origin in the middle) to frame pixels."""
        height, width = size
        if self.still:
            return np.array([[height, 0, width / 2], [0, height, height / 2]], np.float64)
        wave = np.sin(2 * np.pi * time_s / np.array([9.0, 7.0, 11.0, 6.0]) + self.phases)
        zoom = height * (1.02 + self.ZOOM * wave[2])
        roll = self.ROLL * wave[3]
        cos, sin = zoom * np.cos(roll), zoom * np.sin(roll)
        pan = np.array([self.PAN_X * wave[0], self.PAN_Y * wave[1]])
        linear = np.array([[cos, -sin], [sin, cos]])
        offset = np.array([width / 2, height / 2]) - linear @ pan
        return np.column_stack([linear, offset])
