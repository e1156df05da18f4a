"""The selection of one video: percepts in, decided combinations out (paper sections 3.2 and 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import UsageError
from engine.percepts import Percepts
from engine.select.background import background_loss
from engine.select.config import SelectionConfig
from engine.select.consistency import consistency_loss
from engine.select.diversity import diverse_combinations
from engine.select.flow_loss import explained_flow_loss, residual_flow
from engine.select.masks import PackedMasks, conflicts, pack
from engine.select.path import OnlinePath, PathCommit
from engine.select.registration import registered_flow_loss
from engine.select.render import Rendered, render
from engine.select.warp import gather, source_pixels

Trace = Callable[[int, np.ndarray, "np.ndarray | None"], None]
"""Called with (frame_index, unary [K], pairwise [K of the previous frame, K] or None) of every frame."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One possible answer for a frame.

    Attributes:
        members: indices into the frame's candidate masks, ascending.
        cost: background loss (Eq. 3) of their union, nats per pixel.
    """

    members: tuple[int, ...]
    cost: float


@dataclass(frozen=True, slots=True)
class Commit:
    """The decided answer for a frame.

    Attributes:
        frame_index: as given to `Selection.step`.
        members: indices of the selected candidate masks of that frame, ascending.
        exact: True when it equals the optimum over the whole video.
        loss_bound: what forced decisions can have cost at most, in units of Eq. 2; 0 when exact.
        margin: how much dearer the best path through another combination of that frame is.
        lag: frames processed between this one and its decision.
    """

    frame_index: int
    members: tuple[int, ...]
    exact: bool
    loss_bound: float
    margin: float
    lag: int


@dataclass(frozen=True, slots=True)
class SelectionStep:
    """What one frame settled.

    Attributes:
        provisional: members of the newest frame on the currently best path.
        provisional_margin: how much dearer the best path to another combination is.
        commits: frames decided now, oldest first.
        path: (frame_index, members) of the currently best path over the frames still undecided, oldest
            first. It ends with the newest frame unless that one is already decided.
    """

    provisional: tuple[int, ...]
    provisional_margin: float
    commits: list[Commit]
    path: list[tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class _Past:
    """What the next frame is compared with."""

    frame_index: int
    masks: PackedMasks
    combinations: list[tuple[int, ...]]
    rendered: Rendered
    image: np.ndarray | None


def score_weights(scores: np.ndarray, masks: PackedMasks, config: SelectionConfig) -> np.ndarray:
    """What the detector's scores add to the cost of each mask: float64 [N], nats per pixel (ours).

    Each pixel of a mask counts the log-odds of the mask's score, as each counts its background log-odds in
    Eq. 3. Without this term the cheapest combination is always the foreground map cut at one half, and two
    objects that touch are one.
    """
    clamp = config.background_clamp
    odds = np.log(np.clip(scores, clamp, 1 - clamp) / (1 - np.clip(scores, clamp, 1 - clamp)))
    reference = np.log(config.score_reference / (1 - config.score_reference))
    h, w = masks.shape
    weights: np.ndarray = -(odds - reference) * masks.areas / max(1, h * w)
    return weights


class Selection:
    """Chooses, frame by frame, the candidate masks that are objects.

    Args:
        config: weights, tolerances and the deadline.
        trace: receives the costs of every frame, for benchmarks that solve the same video offline.
    """

    def __init__(self, config: SelectionConfig, trace: Trace | None = None) -> None:
        self._config = config
        self.trace = trace
        self._path = OnlinePath(config.lag)
        self._past: _Past | None = None
        self._window: dict[int, tuple[int, list[tuple[int, ...]]]] = {}
        self._steps = 0
        self.combinations: list[Combination] = []

    def configure(self, config: SelectionConfig) -> None:
        """Follow other weights from the next frame on; frames in the window keep their costs, the deadline stays."""
        self._config = config

    def reset(self) -> None:
        """Forget everything, undecided frames included; `flush` first to keep them."""
        self._path.reset()
        self._past = None
        self._window.clear()
        self._steps = 0
        self.combinations = []

    def step(self, percepts: Percepts, frame_index: int, image: np.ndarray | None = None) -> SelectionStep:
        """Add a frame and return what is settled by it.

        A frame without flow is compared with the previous one without motion; after a cut call `flush`
        and `reset` first. When frames were dropped, the consistency weight is divided by the gap, because
        less of the past is expected to be still there; the flow already spans the gap.

        Args:
            percepts: candidates without specks and duplicates; N may be 0.
            frame_index: capture index, larger than that of the previous step.
            image: uint8 [h, w, 3] on the working grid; only `flow_form="registered"` needs it.

        Raises:
            UsageError: `flow_form="registered"` without an image.
            ValueError: frame index not ascending, grid size changed without `reset`, values not finite.
        """
        self._check(percepts, frame_index, image)
        config = self._config
        masks = pack(percepts.masks)
        background = background_loss(percepts.background, masks, config.background_clamp)
        prior = config.score_weight * score_weights(percepts.scores, masks, config)
        kept = diverse_combinations(
            config.lambda_background * background.weights + prior,
            conflicts(masks, config.overlap_allowed),
            masks,
            config.combinations,
            config.near_copy_iou,
            config.node_budget,
        )
        members = [chosen for _, chosen in kept.combinations]
        rendered = render(masks, members, background.mean_logits)
        costs = background.of_unions(rendered.unions)
        shares = prior.tolist()
        unary = config.lambda_background * costs + [sum(shares[m] for m in chosen) for chosen in members]
        newest = _Past(frame_index, masks, members, rendered, image)
        pairwise = None if self._past is None else self._pairwise(self._past, newest, percepts)
        if self.trace is not None:
            self.trace(frame_index, unary, pairwise)
        self.combinations = [Combination(m, c) for m, c in zip(members, costs.tolist(), strict=True)]
        self._past = newest
        self._window[self._steps] = (frame_index, members)
        self._steps += 1
        commits = self._path.push(unary, pairwise)
        best = self._path.best_node
        path = [(self._window[step][0], self._window[step][1][node]) for step, node in self._path.best_path()]
        return SelectionStep(members[best], self._path.margin, self._decided(commits), path)

    def flush(self) -> list[Commit]:
        """Decide every undecided frame as if the video ended here; the next frame starts a new path."""
        commits = self._decided(self._path.flush())
        self._past = None
        return commits

    def _check(self, percepts: Percepts, frame_index: int, image: np.ndarray | None) -> None:
        if image is None and self._config.flow_form == "registered":
            raise UsageError("selection flow_form=registered: needs the image of every frame, got none")
        if self._past is None:
            return
        if frame_index <= self._past.frame_index:
            raise ValueError(f"frame index {frame_index} after {self._past.frame_index}: must be ascending")
        shape = percepts.background.shape
        if shape != self._past.masks.shape:
            raise ValueError(f"grid {shape} after {self._past.masks.shape}: call reset() when it changes")

    def _pairwise(self, past: _Past, newest: _Past, percepts: Percepts) -> np.ndarray:
        """Weighted Eq. 4 + Eq. 5 for every pair of combinations: float64 [J, K]."""
        config = self._config
        count = len(past.combinations)
        source = None if percepts.flow is None else source_pixels(percepts.flow)
        weight = config.lambda_consistency / (newest.frame_index - past.frame_index)
        unions = newest.rendered.unions
        total = weight * consistency_loss(
            past.rendered.choices, count, unions, source if config.warped else None, config.both_empty
        )
        if source is None or percepts.flow is None or percepts.residual is None or config.lambda_flow == 0.0:
            return total
        flow = residual_flow(percepts.residual)
        if flow.is_still(config.min_flow_px):
            return total
        if config.flow_form == "explained":
            moved = gather(past.rendered.choices, source)
            loss = explained_flow_loss(flow, newest.masks, newest.rendered, moved, count)
        else:
            assert newest.image is not None
            assert past.image is not None
            loss = registered_flow_loss(
                flow,
                percepts.flow,
                newest.masks,
                newest.combinations,
                newest.rendered,
                newest.image,
                past.masks,
                past.combinations,
                past.image,
            )
        return total + config.lambda_flow * loss

    def _decided(self, commits: list[PathCommit]) -> list[Commit]:
        out = []
        for commit in commits:
            frame_index, combinations = self._window.pop(commit.frame_index)
            out.append(
                Commit(
                    frame_index=frame_index,
                    members=combinations[commit.node],
                    exact=commit.exact,
                    loss_bound=commit.loss_bound,
                    margin=commit.margin,
                    lag=self._steps - 1 - commit.frame_index,
                )
            )
        return out
