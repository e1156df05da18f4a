"""The seeds of a stream: before each selection they advise, after each commit they learn."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.percepts import Percepts
from engine.seeds.analysis import Seen, look, usable
from engine.seeds.config import SeedsConfig
from engine.seeds.grow import grow_candidates, uncovered
from engine.seeds.lessons import teach
from engine.seeds.memory import SeedMemory
from engine.seeds.overlap import overlaps
from engine.seeds.propagate import UNCONFIRMED_LIFE_FRAMES, Propagated, Propagator
from engine.seeds.refine import gray, guided_filter
from engine.seeds.sets import soft_foreground_with_similarity
from engine.seeds.tracks import SeedTracks
from engine.select.masks import pack

_CONFIRMING_IOU = 0.5
_CONFIRMING_FOREGROUND = 0.6
_INSIDE = np.float32(3.0)
"""Logit of pixels in a grown mask; its negative outside."""

_BLANK = 2.0
"""Standard deviation in gray levels below which a frame is black, white or a covered lens."""

_LONGEST_WAIT = 256
"""Frames remembered for their commit; a longer lag commits without teaching."""


@dataclass(frozen=True, slots=True)
class SeedFrame:
    """What the seeds add to one frame.

    Attributes:
        percepts: what the selection and everything after it should use: the corrected background map, and the
            extra candidates after the network's.
        own: number of candidates that were there before; indices from here on are grown or propagated.
        grown, propagated: how many of each joined, in this order.
        seen: what the seeds say about this frame alone; None without usable embedding, between looks, and where
            no coupling asks for it.
        foreground: float32 [h, w], P_FG by the memories; None while one of them is empty or nobody asks for it.
        timing_ms: "seeds" and its parts.
    """

    percepts: Percepts
    own: int
    grown: int
    propagated: int
    seen: Seen | None
    foreground: np.ndarray | None
    timing_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def salient(self) -> np.ndarray | None:
        """float32 [h, w], P_FG by this frame's own seeds (Eq. 15); computed when asked for."""
        return None if self.seen is None else self.seen.salient.reshape(self.percepts.background.shape)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What must be kept of a frame until its commit."""

    step: int
    percepts: Percepts
    own: int
    seen: Seen | None
    extra: list[Propagated]
    good: bool


class Seeds:
    """State: seed tracks, memories, last final masks, and the frames whose commit is awaited.

    Args:
        config: every knob.
    """

    def __init__(self, config: SeedsConfig) -> None:
        self._config = config
        self.memory: SeedMemory | None = None
        self._tracks = SeedTracks(config.members, config.track_rate, config.track_lag)
        self._propagator = Propagator()
        self.reset()

    def reset(self) -> None:
        """Forget everything (another source)."""
        self.memory = None
        self._steps = 0
        self._learned_at: int | None = None
        self.cut()

    def cut(self) -> None:
        """Forget what motion links (scene cut, flash, gap); what was learned of objects stays."""
        self._tracks.reset()
        self._propagator.reset()
        self._pending: dict[int, _Pending] = {}
        self._image: np.ndarray | None = None

    def step(self, percepts: Percepts, frame_index: int, image: np.ndarray | None = None) -> SeedFrame:
        """Advise on a frame before its selection.

        Args:
            percepts: as the selection would get them.
            frame_index: capture index, ascending.
            image: uint8 [h, w, 3] BGR of any size; lets borders follow it and flashes be seen.
        """
        config = self._config
        own = len(percepts.masks)
        if not config.enabled:
            return SeedFrame(percepts, own, 0, 0, None, None)
        clock = _Clock()
        step, self._steps = self._steps, self._steps + 1
        small = None if image is None else _fit(image, percepts.background.shape)
        good = self._is_good(percepts, small)
        background = np.clip(np.nan_to_num(percepts.background, nan=1.0), 0.0, 1.0)
        # Carrying masks needs no seeds: only what learns from them or grows them pays for finding them.
        fit = (config.learn_memory or config.grow) and usable(percepts.embedding)
        seen = look(percepts, self._tracks, config) if fit and step % config.look_frames == 0 else None
        clock.lap("look")
        asked = fit and (config.correct_background or config.grow)
        foreground, known = self._recall(percepts, frame_index, small) if asked else (None, None)
        if foreground is not None and known is not None and config.correct_background:
            rate = np.float32(config.correction) * (known if config.correct_known_only else np.float32(1.0))
            background = background + rate * ((1.0 - foreground) - background)
        clock.lap("recall")
        flow = None if percepts.flow is None else np.nan_to_num(percepts.flow)
        moved = self._propagator.candidates(step, flow) if config.propagate else []
        self._confirm(moved, percepts, seen, step)
        clock.lap("propagate")
        extra = self._extra(percepts, seen, foreground, moved)
        clock.lap("grow")
        scores = [c.base if c.identity < 0 else c.score(step, config.carried_score) for c in extra]
        joined = _join(percepts, background.astype(np.float32, copy=False), extra, scores)
        self._pending[frame_index] = _Pending(step, joined, own, seen, extra, good)
        if len(self._pending) > _LONGEST_WAIT:
            del self._pending[min(self._pending)]
        grown = sum(candidate.identity < 0 for candidate in extra)
        return SeedFrame(
            percepts=joined,
            own=own,
            grown=grown,
            propagated=len(extra) - grown,
            seen=seen,
            foreground=foreground,
            timing_ms=clock.total("seeds"),
        )

    def learn(self, frame_index: int, chosen: Mapping[int, int], exact: bool, loss_bound: float) -> bool:
        """Take in the final answer for a frame; frames in order.

        Args:
            frame_index: as given to `step`.
            chosen: object id -> index of its candidate in `SeedFrame.percepts`.
            exact, loss_bound: of the commit.

        Returns:
            Whether the memories changed: not on a guess, a bad frame, an empty selection, or between refreshes.
        """
        pending = self._pending.get(frame_index)
        self._pending = {key: value for key, value in self._pending.items() if key > frame_index}
        if pending is None:
            return False
        config = self._config
        extra = {pending.own + i: item for i, item in enumerate(pending.extra)}
        confirmed = {i: extra[m].confirmed if m in extra else pending.step for i, m in chosen.items()}
        if config.propagate:
            percepts = pending.percepts
            final = {
                i: (percepts.logits[m], extra[m].base if m in extra else float(percepts.scores[m]), confirmed[i])
                for i, m in chosen.items()
                if pending.step - confirmed[i] < UNCONFIRMED_LIFE_FRAMES
            }
            self._propagator.commit(pending.step, final)
        if not config.learn_memory or pending.seen is None or not chosen:
            return False
        if config.guard and (not pending.good or not (exact or loss_bound <= config.max_loss_bound)):
            return False
        if self._learned_at is not None and (
            config.refresh_frames == 0 or frame_index - self._learned_at < config.refresh_frames
        ):
            return False
        sure = {i: m for i, m in chosen.items() if not config.guard or confirmed[i] == pending.step}
        channels = pending.seen.embeddings.shape[1]
        if self.memory is None or self.memory.channels != channels:
            self.memory = SeedMemory(
                channels, config.object_capacity, config.background_capacity, config.objects, config.track_rate
            )
        teach(self.memory, pending.seen, pending.percepts.masks, sure, list(chosen.values()), frame_index, config)
        self._learned_at = frame_index
        return True

    def similarity(self, identity: int, embedding: np.ndarray) -> float:
        """How much float32 [E] or [n, E] looks like a remembered object, in [0, 1]; 0 for an unknown id."""
        return 0.0 if self.memory is None else self.memory.similarity(identity, embedding)

    def foreground(self, identity: int) -> float:
        """Smoothed O M of a remembered object's seeds (F of Eq. 10) in [0, 1]; 0 for an unknown id."""
        known = None if self.memory is None else self.memory.objects.get(identity)
        return 0.0 if known is None else known.foreground

    def _is_good(self, percepts: Percepts, small: np.ndarray | None) -> bool:
        """False on frames that teach nothing true: no motion link to the past, black, flash."""
        before, self._image = self._image, small
        if percepts.flow is None:
            return False
        if small is None:
            return True
        if float(cv2.meanStdDev(small)[1].max()) < _BLANK:
            return False
        return before is None or cv2.norm(small, before, cv2.NORM_L1) <= self._config.flash_difference * small.size

    def _recall(
        self, percepts: Percepts, frame_index: int, small: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """P_FG by the memories and how well they know each pixel, float32 [h, w]; None while one is empty."""
        config, embedding = self._config, percepts.embedding
        if self.memory is None or embedding is None or self.memory.channels != len(embedding):
            return None, None
        rows = self.memory.known_rows(frame_index - config.active_frames, config.active_objects)
        if not len(rows) or not len(self.memory.background):
            return None, None
        shape = percepts.background.shape
        flat = embedding.reshape(len(embedding), -1)
        foreground, known = soft_foreground_with_similarity(flat, rows, self.memory.background.rows)
        foreground = foreground.reshape(shape)
        if small is not None and config.refine:
            foreground = guided_filter(gray(small), foreground)
        return foreground, known.reshape(shape)

    def _confirm(self, moved: list[Propagated], percepts: Percepts, seen: Seen | None, step: int) -> None:
        """Fresh evidence for carried masks: a proposal that agrees, or this frame's own moving seeds.

        The memories have no say here: they were taught by the mask that asks.
        """
        if not moved:
            return
        masks = np.stack([item.logits for item in moved]) > 0
        sure = percepts.masks[percepts.scores >= self._config.covering_score]
        agreement = overlaps(pack(masks), pack(sure)).max(axis=1, initial=0.0)
        agrees = agreement >= _CONFIRMING_IOU
        if seen is not None and seen.moving and not agrees.all():
            agrees |= seen.mean_salient(masks, ~agrees) >= _CONFIRMING_FOREGROUND
        for i in np.flatnonzero(agrees).tolist():
            self._propagator.confirm(moved[i].identity, step)
            moved[i] = dataclasses.replace(moved[i], confirmed=step)

    def _extra(
        self, percepts: Percepts, seen: Seen | None, foreground: np.ndarray | None, moved: list[Propagated]
    ) -> list[Propagated]:
        """Grown candidates (identity -1), then propagated ones, without specks and copies."""
        config = self._config
        shape = percepts.background.shape
        step = self._steps - 1
        found: list[Propagated] = []
        # Only what stands out by its motion now may grow: the memories second it, they never start it.
        if config.grow and seen is not None and seen.moving:
            sure = percepts.masks[percepts.scores >= config.covering_score]
            free = uncovered(seen.labels, sure, len(seen.pixels), config.region_share) & ~seen.sets.background
        else:
            free = np.zeros(0, bool)
        if seen is not None and free.any():
            belief = seen.salient if foreground is None else np.maximum(seen.salient, foreground.ravel())
            masks, scores = grow_candidates(
                seen.tree, seen.labels, seen.pixels, seen.sets.background, free, belief, config
            )
            for mask, score in zip(masks.reshape(-1, *shape), scores, strict=True):
                logits = np.where(mask, _INSIDE, -_INSIDE)
                backed = float(seen.salient[mask.ravel()].mean()) >= _CONFIRMING_FOREGROUND
                confirmed = step if backed else step - UNCONFIRMED_LIFE_FRAMES
                found.append(Propagated(-1, logits, float(score), confirmed))
        return _without_copies([*found, *moved], percepts.masks, config)


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[f"seeds.{name}"] = (now - self._last) * 1e3
        self._last = now

    def total(self, name: str) -> dict[str, float]:
        return {name: (time.perf_counter() - self._start) * 1e3, **self._laps}


def _fit(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if image.shape[:2] == shape:
        return image
    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


def _without_copies(extra: list[Propagated], masks: np.ndarray, config: SeedsConfig) -> list[Propagated]:
    """Those neither too small nor too large nor a copy of a mask bool [N, h, w] or of an earlier one."""
    if not extra:
        return []
    packed = pack(np.stack([item.logits for item in extra]) > 0)
    size = packed.areas / extra[0].logits.size
    copies = overlaps(packed, pack(masks)).max(axis=1, initial=0.0) > config.duplicate_iou
    fits = (packed.areas > 0) & (size >= config.min_area) & (size <= config.max_area) & ~copies
    among = overlaps(packed, packed)
    kept: list[int] = []
    for i in np.flatnonzero(fits).tolist():
        if not kept or among[i, kept].max() <= config.duplicate_iou:
            kept.append(i)
    return [extra[i] for i in kept]


def _join(percepts: Percepts, background: np.ndarray, extra: list[Propagated], extra_scores: list[float]) -> Percepts:
    """Percepts with another background map and more candidates at the end."""
    if not extra:
        return dataclasses.replace(percepts, background=background)
    logits = np.stack([item.logits for item in extra]).astype(np.float32, copy=False)
    scores = np.array(extra_scores, np.float32)
    return dataclasses.replace(
        percepts,
        background=background,
        masks=np.concatenate([percepts.masks, logits > 0]),
        scores=np.concatenate([percepts.scores, scores]),
        logits=np.concatenate([percepts.logits, logits]),
    )
