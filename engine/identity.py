"""Persistent identities: which committed mask is the object we saw before.

The selection deliberately does not track. Here each frame's chosen masks are assigned to known objects in
two passes: first those in sight, by overlap with their flow-warped past and by appearance; then those out of
sight, by appearance and by how far they can have come. Ids are never reused.
"""

import dataclasses
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from engine.appearance import HISTOGRAM_SIZE, AppearanceMemory
from engine.config import IdentityConfig
from engine.percepts import Percepts
from engine.select.warp import source_pixels
from engine.sighting import Sighting, Sightings, embedding_similarities, gathered, likeness_of
from engine.track import Track

_BLANK = 2.0
"""Standard deviation in gray levels below which a frame is black, white or a covered lens."""

_SAME_VIEW = 0.5
"""Correlation of two pictures above which they show the same view in another light."""


@dataclass
class IdAllocator:
    """Hands out ids that are never reused, and remembers those given to masks not yet final.

    A provisional walk over the window meets the same newborn mask in every frame until it is final;
    `(frame, member)` names it, so that it keeps one id. What was measured of a mask is kept for as long.
    """

    next_id: int = 1
    settled: int = -1
    pending: dict[tuple[int, int], int] = field(default_factory=dict)
    sightings: Sightings = field(default_factory=Sightings)

    def newborn(self, frame_index: int, member: int) -> int:
        """Id of the object first seen as candidate `member` of frame `frame_index`."""
        key = (frame_index, member)
        if key not in self.pending:
            self.pending[key] = self.fresh()
        return self.pending[key]

    def fresh(self) -> int:
        """An id nobody had before."""
        self.next_id += 1
        return self.next_id - 1

    def settle(self, frame_index: int) -> None:
        """Frames up to `frame_index` are final: their newborn keys will not be asked for again."""
        self.settled = frame_index
        self.pending = {key: value for key, value in self.pending.items() if key[0] > frame_index}
        self.sightings.settle(frame_index)


class IdentityBook:
    """Known objects after the latest frame it was shown.

    Args:
        config: thresholds.
        allocator: shared with copies of this book that look ahead.
    """

    def __init__(self, config: IdentityConfig, allocator: IdAllocator | None = None) -> None:
        self._config = config
        self._allocator = allocator or IdAllocator()
        self._tracks: list[Track] = []
        self._latest_index = -1
        self._cut_at = -1
        self._view: np.ndarray | None = None
        self._recognised: dict[int, Track] = {}

    def reset(self) -> None:
        """Forget every object; ids go on from where they were."""
        self._tracks = []
        self._cut_at = -1
        self._view = None
        self._recognised = {}

    def look_ahead(self) -> "IdentityBook":
        """A copy that may be stepped over frames that are not final yet."""
        book = IdentityBook(self._config, self._allocator)
        book._tracks = list(self._tracks)
        book._latest_index = self._latest_index
        book._cut_at = self._cut_at
        book._view = self._view
        # Needed only while a frame that shows the young id is not final.
        book._recognised = {i: old for i, old in self._recognised.items() if old.seen > self._allocator.settled}
        return book

    def step(self, frame_index: int, percepts: Percepts, members: tuple[int, ...]) -> list[Track]:
        """Assign the chosen masks of the next frame.

        Args:
            frame_index: capture index of the frame.
            percepts: its candidates, flow and colours; without flow (a cut) nothing is where it was, and
                objects are recognised by their looks alone.
            members: indices of the chosen candidates.

        Returns:
            One track per member, in the order of `members`.
        """
        sightings = self._allocator.sightings.of(frame_index, percepts, members)
        self._watch_view(frame_index, percepts)
        self._age(frame_index)
        known = self._carried(percepts.flow)
        tracks = self._tracks
        likeness = likeness_of(sightings, tracks, known)
        found: dict[int, int] = {}
        if sightings and known:
            similarity, crowded = self._in_sight(sightings, known, likeness)
            for row, column in zip(*linear_sum_assignment(-similarity), strict=True):
                if similarity[row, column] >= self._config.min_similarity:
                    found[int(row)] = known[int(column)]
        else:
            crowded = np.zeros(len(sightings), bool)
        recalled = self._recall(frame_index, sightings, likeness, found)
        result = []
        for i, sighting in enumerate(sightings):
            before = found.get(i)
            chosen = recalled.get(i, before)
            if chosen is None:
                track = self._newborn(frame_index, sighting)
                self._tracks.append(track)
            else:
                track = self._seen_again(tracks[chosen], frame_index, sighting, i in recalled, bool(crowded[i]))
                if before is not None and before != chosen and self._is_young(tracks[before], frame_index):
                    track = self._merged(track, tracks[before])
                tracks[chosen] = track
            result.append(track)
        merged = {old for old, track in self._recognised.items() if track.seen == frame_index}
        self._tracks = [track for track in self._tracks if track.id not in merged]
        self._latest_index = frame_index
        return result

    def settle(self, frame_index: int) -> None:
        """Frames up to this one are final."""
        self._allocator.settle(frame_index)

    def recognised_now(self, tracks: list[Track]) -> list[Track]:
        """Tracks of an earlier frame with the identities known by now.

        An object entering the view is often recognised only after a few frames; a scene that is not final
        yet can still say so.
        """
        result = []
        for track in tracks:
            old = self._recognised.get(track.id)
            while old is not None:
                track = dataclasses.replace(track, id=old.id, label=old.label, born=old.born)
                old = self._recognised.get(old.id)
            result.append(track)
        return result if any(a is not b for a, b in zip(result, tracks, strict=True)) else tracks

    def _watch_view(self, frame_index: int, percepts: Percepts) -> None:
        """Notice that the camera looks elsewhere: without flow, and with a picture unlike the last one.

        A light that is switched on breaks the flow as a cut does, but places keep their meaning. A black
        frame says nothing about either; the view before it is kept to be compared with.
        """
        image = percepts.image
        seen = image is None or float(cv2.meanStdDev(image)[1].max()) >= _BLANK
        if percepts.flow is None and seen:
            before = self._view
            if (
                image is None
                or before is None
                or before.shape != image.shape
                or _correlation(before, image) < _SAME_VIEW
            ):
                self._cut_at = frame_index
        if seen:
            self._view = image

    def _age(self, frame_index: int) -> None:
        """Forget who was away too long: a passing speck sooner than an old acquaintance."""
        config = self._config
        kept = [
            track
            for track in self._tracks
            if frame_index - track.seen
            <= (config.forget_after_frames if track.sightings >= config.trusted_sightings else config.carry_frames)
        ]
        if len(kept) > config.remembered:
            kept = sorted(kept, key=lambda track: track.seen)[-config.remembered :]
        self._tracks = kept

    def _carried(self, flow: np.ndarray | None) -> list[int]:
        """Positions of tracks with a place in the new frame, their masks moved there along the flow."""
        if flow is None:
            return []
        carried = [
            j
            for j, track in enumerate(self._tracks)
            # Before the cut it was somewhere else.
            if track.seen >= self._cut_at and self._latest_index - track.seen <= self._config.carry_frames
        ]
        if carried:
            moved = gathered(np.stack([self._tracks[j].mask for j in carried]), source_pixels(flow))
            for j, mask in zip(carried, moved, strict=True):
                # Flow that is not its own must not wipe out an object that only stopped or hides.
                if mask.any():
                    # A copy: a view would keep the masks of all who were in sight for as long as one of them is known.
                    self._tracks[j] = dataclasses.replace(self._tracks[j], mask=mask.copy())
        return carried

    def _in_sight(
        self, sightings: list[Sighting], known: list[int], likeness: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarity with the tracks that have a place: float64 [members, known], and bool [members] crowded.

        Overlap (intersection over union, or half the share of the smaller one inside the larger when a blob
        splits or merges) blended with appearance. Who looks different is no match unless it overlaps very
        well: a mask that held two objects and keeps the other one must not take the id along.
        A mask is crowded when it swallows most of two tracks; its look is nobody's.
        """
        config = self._config
        tracks = [self._tracks[j] for j in known]
        a = np.stack([s.mask for s in sightings]).reshape(len(sightings), -1).astype(np.float32)
        b = np.stack([track.mask for track in tracks]).reshape(len(tracks), -1).astype(np.float32)
        inter = a @ b.T
        area_a, area_b = a.sum(axis=1)[:, None], b.sum(axis=1)[None]
        iou = inter / np.maximum(area_a + area_b - inter, 1.0)
        inside = inter / np.maximum(np.minimum(area_a, area_b), 1.0)
        overlap = np.maximum(iou, 0.5 * inside).astype(np.float64)
        similarity = overlap.copy()
        alike = embedding_similarities(sightings, tracks)
        known_alike = ~np.isnan(alike)
        similarity[known_alike] += config.embedding_weight * (alike - overlap)[known_alike]
        near = likeness[:, known]
        compared = ~np.isnan(near)
        blended = (1 - config.look_weight) * similarity + config.look_weight * np.clip((near - 0.4) / 0.4, 0, 1)
        similarity = np.where(compared, blended, similarity)
        # Light may change at once, places do not: of who was just there less likeness is asked, the better
        # it overlaps.
        current = np.array([self._latest_index - track.seen <= 1 for track in tracks])
        asked = np.where(current[None], np.minimum(1.0, 2.0 * (1.0 - overlap)), 1.0)
        strange = compared & (near < config.strange_likeness * asked)
        similarity[(overlap < config.min_overlap) | strange] = 0.0
        swallowed = inter / np.maximum(area_b, 1.0) > 0.5
        return similarity, (swallowed & current).sum(axis=1) > 1

    def _recall(
        self, frame_index: int, sightings: list[Sighting], likeness: np.ndarray, found: dict[int, int]
    ) -> dict[int, int]:
        """Objects out of sight that come back: position in `sightings` to position in the list of tracks.

        Asked for by masks without a track; by tracks so young that they may be somebody we knew, as the
        first view of an object entering the frame is often too small to recognise it; and by masks that
        look little like their own track, if somebody away is clearly more alike.
        """
        config = self._config
        taken = set(found.values())
        asking = [
            i
            for i in range(len(sightings))
            if i not in found
            or self._is_young(self._tracks[found[i]], frame_index)
            or likeness[i, found[i]] < config.doubtful_likeness
        ]
        away = [
            j
            for j, track in enumerate(self._tracks)
            if j not in taken and (track.seen < self._cut_at or track.seen < self._latest_index)
        ]
        if not asking or not away:
            return {}
        height, width = sightings[0].mask.shape
        alike = likeness_of([sightings[i] for i in asking], self._tracks, away)[:, away]
        tracks = [self._tracks[j] for j in away]
        seen = np.array([track.seen for track in tracks])
        gap = frame_index - seen
        elsewhere = seen < self._cut_at
        drift = np.array([track.velocity for track in tracks]) * np.minimum(gap, 10)[:, None]
        # Who went on out of view is expected where the view ends.
        expected = np.clip(np.array([track.place for track in tracks]) + drift, 0, (height, width))
        value = np.zeros((len(asking), len(away)))
        for row, i in enumerate(asking):
            sighting = sightings[i]
            if sighting.area < config.recall_area * height * width:
                continue
            born, needed = frame_index, np.full(len(away), config.recall_similarity)
            distance = np.hypot(*(sighting.place - expected).T)
            closeness = np.exp(-distance / (width * (0.1 + 0.01 * gap)))
            if config.recall_similarity <= 1.0:
                needed -= np.where(elsewhere, 0.0, config.near_bonus * closeness)
            if i in found:
                own = self._tracks[found[i]]
                if self._is_young(own, frame_index):
                    born = own.born
                else:
                    needed = np.maximum(needed, likeness[i, found[i]] + config.doubt_margin)
            reachable = elsewhere | (distance <= config.pace * width * gap)
            # Somebody seen while the young track was there is not who it was before, unless one object was seen
            # in two parts for a while: then the established part was next to it, looked the same, and is gone.
            apart = seen < born
            if born < frame_index:
                beside = distance <= config.split_reach * width
                known = np.array([track.born for track in tracks]) < born - config.adopt_frames
                apart |= beside & known & ~elsewhere & (alike[row] >= config.split_likeness)
            back = reachable & apart & (alike[row] >= needed)
            # Of several who look right, the one that left here: an object known in parts has more than one id.
            left_here = np.where(elsewhere, 0.0, np.exp(-distance / (config.return_reach * width)))
            value[row, back] = 1.0 + alike[row, back] + config.return_weight * left_here[back]
        return {
            asking[row]: away[column]
            for row, column in zip(*linear_sum_assignment(-value), strict=True)
            if value[row, column] > 0
        }

    def _merged(self, track: Track, young: Track) -> Track:
        """`track` after it turned out that `young` was the same object all along."""
        track = dataclasses.replace(
            track, memory=track.memory.joined(young.memory), sightings=track.sightings + young.sightings
        )
        self._recognised[young.id] = track
        return track

    def _is_young(self, track: Track, frame_index: int) -> bool:
        return frame_index - track.born <= self._config.adopt_frames

    def _newborn(self, frame_index: int, sighting: Sighting) -> Track:
        identity = self._allocator.newborn(frame_index, sighting.member)
        used = {track.label for track in self._tracks}
        label = identity if identity <= 0xFFFF else next(v for v in range(1, 0x10000) if v not in used)
        looks = np.empty((0, HISTOGRAM_SIZE), np.float32) if sighting.look is None else sighting.look[None]
        return Track(
            id=identity,
            born=frame_index,
            seen=frame_index,
            sightings=1,
            mask=sighting.mask,
            place=sighting.place,
            velocity=np.zeros(2),
            embedding=sighting.embedding,
            memory=AppearanceMemory(looks, self._config.memory_looks),
            foreground=sighting.foreground,
            score=sighting.score,
            label=label,
        )

    def _seen_again(self, track: Track, frame_index: int, sighting: Sighting, returned: bool, crowded: bool) -> Track:
        rate = self._config.smoothing
        pace = rate if sighting.foreground >= track.foreground else self._config.fading
        gap = max(frame_index - track.seen, 1)
        step = (sighting.place - track.place) / gap
        embedding = track.embedding
        if embedding is not None and sighting.embedding is not None:
            embedding = (1 - rate) * embedding + rate * sighting.embedding
        memory = track.memory
        if (
            sighting.look is not None
            and not crowded
            and (
                not len(memory.samples)
                or returned
                or memory.likeness(sighting.look[None])[0] >= self._config.familiar_likeness
            )
        ):
            memory = memory.with_look(sighting.look)
        return dataclasses.replace(
            track,
            seen=frame_index,
            sightings=track.sightings + 1,
            mask=sighting.mask,
            place=sighting.place,
            velocity=np.zeros(2) if returned else (1 - rate) * track.velocity + rate * step,
            embedding=embedding,
            memory=memory,
            foreground=track.foreground + pace * (sighting.foreground - track.foreground),
            score=sighting.score,
        )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two images of the same size: what gain and offset do not change."""
    x, y = (image.astype(np.float32) - image.mean() for image in (a, b))
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0
