"""Identity metrics of one sequence: HOTA, IDF1, identity switches and what happens at re-entries."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

ALPHAS = np.arange(0.05, 0.96, 0.05)
"""Overlaps that HOTA averages over."""
COVERED = 0.5
"""Overlap from which a mask shows an object (IDF1, switches, re-entries)."""
HIDDEN_SHARE, BACK_SHARE = 0.05, 0.3
"""Visible area, as a share of the object's largest, below which it is hidden and from which it is back."""
HIDDEN_FRAMES, RETURN_FRAMES = 5, 10
"""Frames an absence lasts at least, and frames in which a returned object must be found."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame: which objects are visible, which ids were published, and how much they overlap.

    Attributes:
        truth, ids: int [G], [P], each value once.
        iou: float [G, P].
        area: int [G], visible pixels of each true object.
    """

    truth: np.ndarray
    ids: np.ndarray
    iou: np.ndarray
    area: np.ndarray


@dataclass
class Reentries:
    """Returns after an absence: with a mask or without, and with the id from before or another.

    Attributes:
        kept: most of the masks found on return carry the old id.
        kept_at_once: so does the first of them.
        changed: found, but under another id.
        uncovered: no mask overlaps it enough, so there was nothing to give an id to.
        unknown: it had no covered frame before the absence.
    """

    kept: int = 0
    kept_at_once: int = 0
    changed: int = 0
    uncovered: int = 0
    unknown: int = 0

    @property
    def rate(self) -> float:
        """Share of the covered returns that keep their id; nan without any."""
        covered = self.kept + self.changed
        return self.kept / covered if covered else float("nan")

    def __add__(self, other: "Reentries") -> "Reentries":
        return Reentries(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def compare(truth: np.ndarray, ids: np.ndarray, min_area: int = 64) -> Shown:
    """Overlaps of two id maps of one size, 0 being background; true slivers below `min_area` are not asked for."""
    (rows, row_of), (columns, column_of) = _numbered(truth), _numbered(ids)
    joint = np.bincount(row_of * len(columns) + column_of, minlength=len(rows) * len(columns))
    joint = joint.reshape(len(rows), len(columns))
    area_t, area_p = joint.sum(axis=1), joint.sum(axis=0)
    iou = joint / np.maximum(area_t[:, None] + area_p[None] - joint, 1)
    wanted, published = (rows > 0) & (area_t >= min_area), columns > 0
    return Shown(rows[wanted], columns[published], iou[wanted][:, published], area_t[wanted])


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, ascending, and the place of every pixel's value among them, flat."""
    flat = values.ravel()
    if flat.max(initial=0) > 0xFFFF:
        distinct, place = np.unique(flat, return_inverse=True)
        return distinct, place
    # Ids are small numbers: counting them takes a tenth of the time that sorting takes.
    distinct = np.flatnonzero(np.bincount(flat))
    place_of = np.zeros(int(distinct.max(initial=0)) + 1, np.int64)
    place_of[distinct] = np.arange(len(distinct))
    return distinct, place_of[flat]


@dataclass
class TrackingScore:
    """Collects frames of one sequence in order, then scores them."""

    frames: list[Shown] = field(default_factory=list)

    def add(self, shown: Shown) -> None:
        """The next frame."""
        self.frames.append(shown)

    def summary(self) -> dict[str, float]:
        """{"HOTA", "DetA", "AssA", "IDF1", "switches"}."""
        return {**self.hota(), "IDF1": self.idf1(), "switches": self.switches()}

    def _indexed(self) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
        """Frames with dense row and column numbers, and how many frames show each object and each id."""
        truth = np.unique(np.concatenate([f.truth for f in self.frames] or [np.empty(0, int)]))
        ids = np.unique(np.concatenate([f.ids for f in self.frames] or [np.empty(0, int)]))
        frames = [(np.searchsorted(truth, f.truth), np.searchsorted(ids, f.ids), f.iou) for f in self.frames]
        rows = np.bincount(np.concatenate([f[0] for f in frames]).astype(int), minlength=len(truth))
        columns = np.bincount(np.concatenate([f[1] for f in frames]).astype(int), minlength=len(ids))
        return frames, rows, columns

    def hota(self) -> dict[str, float]:
        """HOTA, detection and association accuracy, each the mean over `ALPHAS`.

        In each frame objects and ids are paired so that pairs which agree over the whole sequence go
        first; a pair counts at alpha when its overlap reaches alpha. AssA weighs each counted pair by the
        Jaccard index of its object's and its id's frames; HOTA_alpha = sqrt(DetA_alpha AssA_alpha).
        """
        if not self.frames:
            return {"HOTA": 0.0, "DetA": 0.0, "AssA": 0.0}
        frames, rows, columns = self._indexed()
        together = np.zeros((len(rows), len(columns)))
        for r, c, iou in frames:
            share = iou / np.maximum(iou.sum(axis=0)[None] + iou.sum(axis=1)[:, None] - iou, 1e-9)
            together[np.ix_(r, c)] += share
        alignment = together / np.maximum(rows[:, None] + columns[None] - together, 1e-9)
        matches = np.zeros((len(ALPHAS), len(rows), len(columns)))
        for r, c, iou in frames:
            i, j = linear_sum_assignment(-alignment[np.ix_(r, c)] * iou)
            for k, alpha in enumerate(ALPHAS):
                hit = iou[i, j] >= alpha - 1e-9
                matches[k, r[i[hit]], c[j[hit]]] += 1
        found = matches.sum(axis=(1, 2))
        detection = found / np.maximum(rows.sum() + columns.sum() - found, 1)
        jaccard = matches / np.maximum(rows[None, :, None] + columns[None, None] - matches, 1)
        association = (matches * jaccard).sum(axis=(1, 2)) / np.maximum(found, 1)
        return {
            "HOTA": float(np.sqrt(detection * association).mean()),
            "DetA": float(detection.mean()),
            "AssA": float(association.mean()),
        }

    def idf1(self) -> float:
        """Share of object-frames and id-frames explained by the best one-to-one pairing of objects and ids."""
        if not self.frames:
            return 0.0
        frames, rows, columns = self._indexed()
        shared = np.zeros((len(rows), len(columns)))
        for r, c, iou in frames:
            shared[np.ix_(r, c)] += iou >= COVERED
        explained = shared[linear_sum_assignment(-shared)].sum()
        return float(2 * explained / max(rows.sum() + columns.sum(), 1))

    def switches(self) -> int:
        """How often the id that covers an object differs from the last one that did."""
        return sum(sum(a != b for a, b in itertools.pairwise(seq)) for seq in self._covering_ids().values())

    def _covering_ids(self) -> dict[int, list[int]]:
        """For each object the ids that cover it, in time; one id covers one object, a running pair goes first."""
        latest: dict[int, int] = {}
        sequences: dict[int, list[int]] = defaultdict(list)
        for frame in self.frames:
            running = np.array([[latest.get(int(t)) == i for i in frame.ids] for t in frame.truth], bool)
            value = np.where(frame.iou >= COVERED, frame.iou + 10.0 * running.reshape(frame.iou.shape), 0.0)
            for i, j in zip(*linear_sum_assignment(-value), strict=True):
                if value[i, j] > 0:
                    latest[int(frame.truth[i])] = int(frame.ids[j])
                    sequences[int(frame.truth[i])].append(int(frame.ids[j]))
        return sequences

    def reentries(self) -> Reentries:
        """What became of the ids of objects that were hidden or out of view and came back."""
        result = Reentries()
        for value in np.unique(np.concatenate([f.truth for f in self.frames])):
            area = np.zeros(len(self.frames))
            ids = np.zeros(len(self.frames), int)
            for t, frame in enumerate(self.frames):
                for i in np.flatnonzero(frame.truth == value):
                    area[t] = frame.area[i]
                    best = int(frame.iou[i].argmax()) if len(frame.ids) else 0
                    if len(frame.ids) and frame.iou[i, best] >= COVERED:
                        ids[t] = frame.ids[best]
            share = area / max(area.max(), 1.0)
            for gone, back in _absences(share):
                before = ids[:gone][ids[:gone] > 0][-RETURN_FRAMES:]
                after = ids[back : back + RETURN_FRAMES]
                after = after[after > 0]
                if not len(after):
                    result.uncovered += 1
                elif not len(before):
                    result.unknown += 1
                else:
                    old = Counter(before.tolist()).most_common(1)[0][0]
                    same = Counter(after.tolist()).most_common(1)[0][0] == old
                    result.kept += same
                    result.changed += not same
                    result.kept_at_once += int(after[0]) == old
        return result


def _absences(share: np.ndarray) -> list[tuple[int, int]]:
    """(first hidden frame, first frame back) of each absence of a known object that ends in the sequence."""
    found = []
    gone: int | None = None
    seen = False
    for t, visible in enumerate(share):
        if visible < HIDDEN_SHARE:
            if gone is None:
                gone = t
            last_hidden = t
        elif gone is not None and last_hidden - gone + 1 < HIDDEN_FRAMES:
            gone = None
        if visible >= BACK_SHARE:
            if gone is not None and seen:
                found.append((gone, t))
            gone, seen = None, True
    return found


def plain_linking(maps: list[np.ndarray], min_iou: float = 0.3) -> list[np.ndarray]:
    """The same masks with ids by overlap with the previous frame alone (Hungarian, no motion, no memory).

    Args:
        maps: integer [H, W] each, 0 is background; only the outlines are used.
        min_iou: overlap from which a mask continues one of the previous frame.

    Returns:
        int [H, W] each.
    """
    linked: list[np.ndarray] = []
    next_id = 1
    previous = np.zeros_like(maps[0]) if maps else None
    for current in maps:
        assert previous is not None
        pair = compare(current, previous, min_area=1)
        out = np.zeros(current.shape, int)
        new_of: dict[int, int] = {}
        for i, j in zip(*linear_sum_assignment(-pair.iou), strict=True):
            if pair.iou[i, j] >= min_iou:
                new_of[int(pair.truth[i])] = int(pair.ids[j])
        for value in pair.truth:
            if int(value) not in new_of:
                new_of[int(value)] = next_id
                next_id += 1
            out[current == value] = new_of[int(value)]
        linked.append(out)
        previous = out
    return linked
