"""Labels for unlabelled video, made by the engine itself: what it committed, with a certificate and for long enough.

Three answers are possible for a pixel: it belongs to an object the engine is sure of, it is background, or nobody
knows, and then no loss looks at it. A wrong label costs more than a missing one, so every rule drops.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.network import Network
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.scene import Scene
from engine.select.warp import source_pixels
from learning.synthesis.sample import MAX_INSTANCES, SIZE, Kind

IGNORED_ID = MAX_INSTANCES - 1
"""Reserved `Kind.UNSURE` id of pixels about which nothing is claimed."""


@dataclass(frozen=True)
class LabelRules:
    """When a committed mask is believed; the reasons stand beside the values.

    Lengths are in pixels of the 448x256 input, areas in fractions of the frame.
    """

    max_loss_bound: float = 0.02  # Eq. 2 is in nats per pixel: 2 % of one nat; above it the choice was a gamble
    run: int = 3  # consecutive commits under one identity; two also happen by chance
    min_overlap: float = 0.6  # flow-warped IoU from frame to frame within that run
    min_foreground: float = 0.6  # mean foreground probability inside a moving mask
    min_score: float = 0.5  # precision 0.89 on held-out synthesis; a standing object has only its score
    min_residual_px: float = 0.5  # mean motion against the camera; less is what the flow makes of noise
    min_contrast: float = 2.0  # times the frame's median residual: parallax and shake move everything
    min_step: float = 0.5  # of its motion must end at its border: relief slides along with the ground it stands on
    max_background: float = 0.2  # foreground probability below which a pixel may be background
    min_still_score: float = 2.0  # of what is foreground yet rests: never, a window is too short to have seen it move
    doubt_score: float = 0.3  # an unselected proposal above it leaves its pixels open
    min_area: float = 0.002  # 15 cells of the working grid: borders outweigh the inside below
    max_area: float = 0.45  # larger ones are mostly ground, a wall, or an object fused with either
    max_border: float = 0.25  # share of the frame's border a mask may touch; an arm that reaches in needs 0.15
    min_solid: float = 0.85  # area over the area without holes and bays; the ragged ones are guesses
    max_static_area: float = 0.15  # large things at rest are furniture and scenery
    max_static_border: float = 0.03  # nothing seen shows where a cut-off thing at rest ends
    max_ignored: float = 0.6  # a frame that claims less than the rest of it teaches little
    min_difference: float = 4.0  # mean gray levels between two kept frames of a clip


@dataclass(frozen=True, slots=True)
class Watched:
    """One frame of a clip and everything the engine said about it.

    Attributes:
        image: uint8 [256, 448, 3] BGR.
        percepts: cues on the working grid.
        scene: the final scene, labels uint16 [256, 448].
    """

    image: np.ndarray
    percepts: Percepts
    scene: Scene


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of one frame.

    Attributes:
        position: index into the watched frames.
        ids: uint8 [256, 448], 0 = background, IGNORED_ID = open.
        kinds: uint8 [32], `Kind` of every id.
        worth: higher is kept first.
    """

    position: int
    ids: np.ndarray
    kinds: np.ndarray
    worth: float


@dataclass
class Tally:
    """What became of frames and masks, by cause."""

    frames: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)


def watch(images: Sequence[np.ndarray], network: Network, config: EngineConfig) -> list[Watched]:
    """Run the engine over consecutive frames (uint8 [256, 448, 3] BGR) and wait for every final scene."""
    pipeline = Pipeline(config, network)
    percepts: list[Percepts] = []
    finals: dict[int, Scene] = {}
    for index, image in enumerate(images):
        frame = Frame(image, index, 0, "clip")
        percepts.append(pipeline.perceive(frame))
        finals |= {s.frame_index: s for s in pipeline.decide(frame, percepts[-1]) if s.kind == "final"}
    finals |= {s.frame_index: s for s in pipeline.flush()}
    return [Watched(image, percepts[i], finals[i]) for i, image in enumerate(images)]


def _on_grid(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Label map at the working grid, int32 [h, w], sampled at cell centres."""
    rows = (np.arange(grid[0]) * 2 + 1) * labels.shape[0] // (2 * grid[0])
    columns = (np.arange(grid[1]) * 2 + 1) * labels.shape[1] // (2 * grid[1])
    return labels[np.ix_(rows, columns)].astype(np.int32)


def _overlaps(watched: Sequence[Watched]) -> list[dict[int, float]]:
    """Per frame: identity -> IoU of its mask with its own past moved along the flow."""
    out: list[dict[int, float]] = [{} for _ in watched]
    grids = [_on_grid(w.scene.labels, w.percepts.background.shape) for w in watched]
    for t in range(1, len(watched)):
        flow = watched[t].percepts.flow
        if flow is None:
            continue
        source = source_pixels(flow)
        moved = np.where(source >= 0, grids[t - 1].reshape(-1)[source], 0).reshape(grids[t].shape)
        before = {o.id: o.label for o in watched[t - 1].scene.objects}
        for item in watched[t].scene.objects:
            if item.id in before:
                now, past = grids[t] == item.label, moved == before[item.id]
                out[t][item.id] = float((now & past).sum()) / max(1, int((now | past).sum()))
    return out


def consistent_ids(watched: Sequence[Watched], rules: LabelRules) -> list[set[int]]:
    """Per frame: identities inside a run of `rules.run` commits that overlap from frame to frame."""
    links = _overlaps(watched)
    out: list[set[int]] = [set() for _ in watched]
    for end in range(rules.run - 1, len(watched)):
        span = range(end - rules.run + 2, end + 1)
        shared = set.intersection(*({i for i, v in links[t].items() if v >= rules.min_overlap} for t in span))
        for t in range(end - rules.run + 1, end + 1):
            out[t] |= shared
    return out


def _border_share(mask: np.ndarray) -> float:
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(edge.mean())


def _up(cells: np.ndarray) -> np.ndarray:
    """A map of the working grid at label size."""
    return cv2.resize(np.asarray(cells, np.float32), SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def _step_at_border(mask: np.ndarray, residual_px: np.ndarray) -> float:
    """How much of a mask's motion differs from that of its surroundings, in [0, ...): |in - out| / |in|.

    Args:
        mask: bool [h, w].
        residual_px: float32 [2, h, w].
    """
    cells = mask.astype(np.uint8)
    # Flow bleeds over borders by about two cells: look past it.
    near, far = cv2.dilate(cells, _disk(2)), cv2.dilate(cells, _disk(6))
    ring = (far > 0) & (near == 0)
    if not ring.any():
        return 0.0
    inside, outside = residual_px[:, mask].mean(axis=1), np.median(residual_px[:, ring], axis=1)
    return float(np.hypot(*(inside - outside)) / max(1e-6, float(np.hypot(*residual_px[:, mask]).mean())))


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _without_gaps(inside: np.ndarray, radius: int) -> np.ndarray:
    """A mask bool [H, W] with its holes, and bays narrower than twice `radius`, filled."""
    closed = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_CLOSE, _disk(radius))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outlines, -1, 1, cv2.FILLED)
    return closed > 0


def _judge(
    mask: np.ndarray, score: float, foreground: np.ndarray, residual_px: np.ndarray, rules: LabelRules
) -> tuple[Kind, str]:
    """Kind of one certified, consistent mask bool [h, w] and the reason; residual_px is float32 [2, h, w]."""
    if not mask.any() or mask.mean() < rules.min_area:
        return Kind.UNSURE, "small"
    if mask.mean() > rules.max_area:
        return Kind.UNSURE, "large"
    border = _border_share(mask)
    if border > rules.max_border:
        return Kind.UNSURE, "border"
    if mask.sum() < rules.min_solid * _without_gaps(mask, 3).sum():
        return Kind.UNSURE, "ragged"
    speed_px = np.hypot(*residual_px)
    inside, motion = float(foreground[mask].mean()), float(speed_px[mask].mean())
    moves = motion >= max(rules.min_residual_px, rules.min_contrast * float(np.median(speed_px)))
    if moves and inside >= rules.min_foreground:
        if _step_at_border(mask, residual_px) < rules.min_step:
            return Kind.UNSURE, "moves with its surroundings"
        return Kind.MOVING, "moving"
    if not moves and inside < rules.min_foreground and score >= rules.min_score:
        if mask.mean() > rules.max_static_area or border > rules.max_static_border:
            return Kind.UNSURE, "scenery"
        return Kind.STATIC, "static"
    if moves:
        return Kind.UNSURE, "moves, not foreground"
    if inside >= rules.min_foreground and score >= rules.min_still_score:
        return Kind.STATIC, "foreground at rest"
    return Kind.UNSURE, "foreground, does not move" if inside >= rules.min_foreground else "score"


def label_frame(
    position: int, watched: Watched, consistent: set[int], rules: LabelRules, tally: Tally
) -> Labelled | None:
    """Labels of one frame, or None when it is certain of nothing; `tally` takes the cause either way."""
    percepts, scene = watched.percepts, watched.scene
    if percepts.flow is None or percepts.residual is None:
        tally.frames["no motion before it"] += 1
        return None
    commit = scene.commit
    if commit is None or not (commit.exact or commit.loss_bound <= rules.max_loss_bound):
        tally.frames["certificate"] += 1
        return None
    foreground = 1.0 - percepts.background
    grid = foreground.shape
    residual_px = percepts.residual * np.float32(SIZE[0] / grid[0])
    cells = _on_grid(scene.labels, grid)
    ids, kinds = np.zeros(SIZE, np.uint8), np.zeros(MAX_INSTANCES, np.uint8)
    kinds[IGNORED_ID] = Kind.UNSURE
    # Unselected proposals the network half believes in: resting parts of a mover, things nobody chose.
    doubted = np.any(percepts.masks[percepts.scores >= rules.doubt_score], axis=0)
    ids[(_up(foreground) >= rules.max_background) | (_up(doubted) > 0)] = IGNORED_ID
    worth, value = 0.0, 0
    for item in sorted(scene.objects, key=lambda o: -o.area):
        inside = scene.labels == item.label
        mask = cells == item.label
        kind, cause = Kind.UNSURE, "not consistent"
        if item.id in consistent:
            kind, cause = _judge(mask, item.score, foreground, residual_px, rules)
        tally.masks[cause] += 1
        if kind == Kind.UNSURE:
            ids[inside] = IGNORED_ID
            continue
        if value + 1 == IGNORED_ID:
            ids[inside] = IGNORED_ID
            continue
        value += 1
        # What a mask encloses is more likely a miss than a view of the background.
        ids[_without_gaps(inside, 12) & (ids == 0)] = IGNORED_ID
        ids[inside], kinds[value] = value, kind
        if kind == Kind.MOVING:
            worth += float(foreground[mask].mean()) * float(np.sqrt(mask.mean()))
        else:
            worth += 0.25 * item.score * float(np.sqrt(mask.mean()))
    if value == 0:
        tally.frames["nothing certain"] += 1
        return None
    ignored = float((ids == IGNORED_ID).mean())
    if ignored > rules.max_ignored:
        tally.frames["mostly unsure"] += 1
        return None
    return Labelled(position, ids, kinds, worth * (1 - ignored))


def label_clip(watched: Sequence[Watched], keep: int, rules: LabelRules, tally: Tally) -> list[Labelled]:
    """The `keep` best labelled frames of one window, in order, no two of them alike."""
    consistent = consistent_ids(watched, rules)
    found = [label_frame(t, w, consistent[t], rules, tally) for t, w in enumerate(watched)]
    chosen: list[Labelled] = []
    grays = [cv2.cvtColor(w.image, cv2.COLOR_BGR2GRAY).astype(np.int16) for w in watched]
    for candidate in sorted((f for f in found if f is not None), key=lambda f: (-f.worth, f.position)):
        if len(chosen) == keep:
            tally.frames["enough of this clip"] += 1
            continue
        gaps = [np.abs(grays[candidate.position] - grays[c.position]).mean() for c in chosen]
        if any(gap < rules.min_difference for gap in gaps):
            tally.frames["near-duplicate"] += 1
            continue
        tally.frames["kept"] += 1
        chosen.append(candidate)
    return sorted(chosen, key=lambda f: f.position)
