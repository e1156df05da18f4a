"""Which object to touch, and how, so that it moves and shows what belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from examples.grasping.grasp import Footprint, Limits

Policy = Literal["uncertain", "random", "passive"]
POLICIES: tuple[Policy, ...] = ("uncertain", "random", "passive")

_FIRST_M = 0.045
"""Where the push begins, beyond the object's border: the fingers and the noise of the depth need room."""

_LOW_M = 0.018
"""Height of the tips above the floor."""

_WALL_M = 0.02
"""Free way that the closed fingers keep from the walls."""


class Seen(Protocol):
    """The part of a published object that decides."""

    @property
    def id(self) -> int: ...
    @property
    def uncertainty(self) -> float: ...
    @property
    def novelty(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Poke:
    """A push along a straight line at one height, world metres."""

    x0: float
    y0: float
    x1: float
    y1: float
    z: float


def doubt(item: Seen) -> float:
    """How much is to be learned from an object: its uncertainty or its novelty, whichever is larger."""
    return max(item.uncertainty, item.novelty)


def choose(policy: Policy, objects: Sequence[Seen], poked: Sequence[int], rng: np.random.Generator) -> int | None:
    """Id of the object to touch next, None to keep still.

    "uncertain" takes the highest published uncertainty (or novelty, if that is higher); what was just poked waits until
    its doubts have had time to change. "random" draws one.

    Args:
        objects: those that can be reached.
        poked: ids touched so far, oldest first.
    """
    if policy == "passive" or not objects:
        return None
    if policy == "random":
        return objects[int(rng.integers(len(objects)))].id
    fresh = [item for item in objects if item.id not in poked[-2:]] or list(objects)
    return max(fresh, key=lambda item: (doubt(item), -item.id)).id


def poke_of(found: Footprint, limits: Limits, push_m: float = 0.06) -> Poke:
    """A push across the object's principal axis, towards the middle of the workspace if there is room to begin.

    The object is turned and moved, and stays inside the workspace.
    """
    middle = np.array([sum(limits.x_m), sum(limits.y_m)]) / 2
    axis = np.array([np.cos(found.angle), np.sin(found.angle)])
    ways = []
    for way in (np.array([-axis[1], axis[0]]), axis):
        inwards = way if (middle - found.centroid) @ way >= 0 else -way
        ways += [inwards, -inwards]
    starts = [_beside(found, way) for way in ways]
    # Fingers that came down on the object would squeeze it; without room on any side the first way has to do.
    chosen = next((i for i, at in enumerate(starts) if (_inside(at, limits) == at).all()), 0)
    start = _inside(starts[chosen], limits)
    end = _inside(starts[chosen] + ways[chosen] * (_FIRST_M + push_m), limits)
    return Poke(float(start[0]), float(start[1]), float(end[0]), float(end[1]), limits.floor_m + _LOW_M)


def _beside(found: Footprint, way: np.ndarray) -> np.ndarray:
    """Where a push along `way` begins."""
    along = (found.points[:, :2] - found.centroid) @ way
    # Off the centroid by a little: a push through it would not turn the object.
    aside = 0.12 * found.length_m * np.array([-way[1], way[0]])
    return found.centroid + (np.percentile(along, 2) - _FIRST_M) * way + aside


def poke_place(x: float, y: float, limits: Limits, angle: float, push_m: float = 0.08) -> Poke:
    """A push through a place where something may be, for regions without a mask."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    start = _inside(np.array([x, y]) - (_FIRST_M + 0.02) * direction, limits)
    end = _inside(np.array([x, y]) + push_m * direction, limits)
    return Poke(float(start[0]), float(start[1]), float(end[0]), float(end[1]), limits.floor_m + _LOW_M)


def _inside(at: np.ndarray, limits: Limits) -> np.ndarray:
    (x0, x1), (y0, y1) = limits.x_m, limits.y_m
    return np.clip(at, (x0 + _WALL_M, y0 + _WALL_M), (x1 - _WALL_M, y1 - _WALL_M))
