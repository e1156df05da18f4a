"""The hot path: one frame in, the scenes it settles out.

`Pipeline.step` is the readable, single-threaded definition of the engine. `perceive` depends on frames
only, so a session may run `perceive` of the next frame while `decide` works on this one.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.attention import look_list, uncertainty, video_evidence
from engine.compose import Picture
from engine.config import EngineConfig
from engine.evidence import Evidence
from engine.frame import Frame
from engine.identity import IdAllocator, IdentityBook
from engine.perceive.background import BackgroundCue
from engine.perceive.flow_network import FlowNetwork
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver
from engine.percepts import Percepts
from engine.prompts.stage import Prompts
from engine.propose.candidates import propose
from engine.scene import CommitInfo, Object, Scene
from engine.seeds.stage import Seeds
from engine.select.selection import Commit, Selection
from engine.track import Track


@dataclass(frozen=True, slots=True)
class _Undecided:
    """What must be kept of a frame until it is final: no image, only its percepts and its stamps.

    Pictures of choices once composed stay: a path that loses may win again, and ids may change without the masks.
    """

    percepts: Percepts
    frame_size: tuple[int, int]
    source: str
    t_capture_ns: int
    pts_ns: int | None
    pictures: dict[tuple[int, ...], Picture] = field(default_factory=dict)


@dataclass(slots=True)
class _Walked:
    """One frame of the best path with its identities: the book after it and a track per member.

    Once composed, the provisional scene stays: if the path turns out final, so does the label map.
    """

    frame_index: int
    members: tuple[int, ...]
    book: IdentityBook
    tracks: list[Track]
    scene: Scene | None = None


class Pipeline:
    """Frames to scenes. State: the flow's previous frame, prompts, seeds, the selection window, the identity book.

    Args:
        config: every knob.
        network: the model; shared by the pipelines of one process.
        flow: computes the optical flow in place of OpenCV's; shared likewise.
        background: supplies the background map in place of the model's; shared likewise.

    Attributes:
        timing_ms: what each stage of the latest step took.
    """

    def __init__(
        self,
        config: EngineConfig,
        network: Network,
        flow: FlowNetwork | None = None,
        background: BackgroundCue | None = None,
    ) -> None:
        self._config = config
        self._network = network
        self._perceiver = Perceiver(network, config.perceive, flow, background)
        self.selection = Selection(config.select)
        self.seeds = Seeds(config.seeds)
        self.prompts = Prompts(config.prompts)
        self._ids = IdAllocator()
        self._book = IdentityBook(config.identity, self._ids)
        self._window: dict[int, _Undecided] = {}
        self._walk: list[_Walked] = []
        self._layout: tuple[tuple[int, ...], int] | None = None
        self.timing_ms: dict[str, float] = {}
        self._learning_ms = 0.0

    def step(self, frame: Frame) -> list[Scene]:
        """Scenes settled by `frame`: finals of earlier frames in order, then its own provisional one."""
        return self.decide(frame, self.perceive(frame))

    def perceive(self, frame: Frame) -> Percepts:
        """Flow, network and candidates of `frame`; frames must come in order."""
        return propose(self._perceiver.step(frame), self._config.propose)

    def decide(self, frame: Frame, percepts: Percepts) -> list[Scene]:
        """Prompts, seeds, selection, identity and composition for a frame already perceived."""
        scenes = []
        self._learning_ms = 0.0
        layout = (percepts.background.shape, 0 if percepts.embedding is None else len(percepts.embedding))
        if self._layout not in (None, layout):
            scenes += self._forget()  # a model with another grid or embedding: what is remembered does not fit
        self._layout = layout
        if percepts.flow is None:
            # First frame, a cut, or another image size: nothing before it says where things are now. Objects
            # are remembered by their looks: a black frame or a turn of the camera is no new world.
            scenes += self._cut()
        percepts = self.prompts.step(percepts, frame.index, frame.image.shape[:2])
        advised = self.seeds.step(percepts, frame.index, percepts.image)
        percepts = advised.percepts
        self._window[frame.index] = _Undecided(
            percepts, frame.image.shape[:2], frame.source, frame.t_capture_ns, frame.pts_ns
        )
        start = time.perf_counter()
        step = self.selection.step(percepts, frame.index, percepts.image)
        selected = time.perf_counter()
        taught_ms = self._learning_ms
        scenes += [self._finalise(commit) for commit in step.commits]
        if scenes and scenes[-1].frame_index == frame.index:
            # Nothing to wait for: the frame is already final, and both topics say the same.
            scenes.append(dataclasses.replace(scenes[-1], kind="provisional", commit=None, evidence=None))
        else:
            scenes.append(self._look_ahead(step.path))
        done = time.perf_counter()
        self.timing_ms = {
            **percepts.timing_ms,
            "seeds": advised.timing_ms.get("seeds", 0.0) + self._learning_ms,
            "select": (selected - start) * 1e3,
            "compose": (done - selected) * 1e3 - (self._learning_ms - taught_ms),
        }
        return scenes

    def track(
        self,
        mask: np.ndarray | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        frame_index: int | None = None,
    ) -> int:
        """Follow *this one* from the newest frame on (one-shot mode); between steps, in the thread that decides.

        Args:
            mask: bool [H, W] at frame size; or
            box: (x0, y0, x1, y1), half-open frame pixels; or
            point: (x, y), frame pixels.
            frame_index: a frame other than the newest, of the latest few.

        Returns:
            A new id, pinned to the object in every scene that shows it, until `untrack` or `reset`.

        Raises:
            UsageError: what is wrong with the prompt, in one line.
        """
        identity = self._ids.fresh()
        index = self.prompts.track(identity, mask, box, point, frame_index)
        # Frames walked without the pinned id are walked again when they become final.
        self._walk = [walked for walked in self._walk if walked.frame_index < index]
        return identity

    def untrack(self, identity: int) -> None:
        """Let a tracked object go; it goes on as an ordinary one.

        Raises:
            UsageError: an id that is not tracked.
        """
        self.prompts.untrack(identity)

    def flush(self) -> list[Scene]:
        """Final scenes of every frame still undecided, exact for what was seen."""
        return [self._finalise(commit) for commit in self.selection.flush()]

    def configure(self, config: EngineConfig) -> None:
        """See and choose by other thresholds and weights from the next frame on; between two frames.

        What was sized at the start (the window, memories, threads) stays as it is.
        """
        self._config = config
        self._perceiver.configure(config.perceive)
        self.selection.configure(config.select)

    def swap(self, network: Network) -> list[Scene]:
        """Flush, then see the next frame with another model; between two frames, with none perceived in between.

        Motion, identities, prompts and what the seeds remember stay as long as grid and embedding have the same size;
        otherwise they are forgotten with the first frame the new model has seen.

        Returns:
            Final scenes of every frame still undecided: no selection window holds frames of two models.
        """
        scenes = self.flush()
        self.selection.reset()
        self._walk.clear()
        self._network = network
        self._perceiver.swap(network)
        return scenes

    def reset(self) -> list[Scene]:
        """Flush, then forget everything (source change); ids are still never reused."""
        self._perceiver.reset()
        return self._forget()

    def _forget(self) -> list[Scene]:
        scenes = self._cut()
        self._book.reset()
        self.seeds.reset()
        self.prompts.reset()
        return scenes

    def continue_ids(self, next_id: int) -> None:
        """Give out no id below `next_id` (a source that was removed and is added again)."""
        self._ids.next_id = max(self._ids.next_id, next_id)

    @property
    def next_id(self) -> int:
        """The id the next new object gets; every one below is spent."""
        return self._ids.next_id

    def cut(self) -> list[Scene]:
        """Flush, and follow nothing from before (a gap in the stream); objects are remembered by their looks."""
        self._perceiver.reset()
        return self._cut()

    def _cut(self) -> list[Scene]:
        scenes = self.flush()
        self.selection.reset()
        self.seeds.cut()
        self._walk.clear()
        return scenes

    def _finalise(self, commit: Commit) -> Scene:
        if self._walk and (self._walk[0].frame_index, self._walk[0].members) == (
            commit.frame_index,
            commit.members,
        ):
            walked = self._walk.pop(0)
        else:
            self._walk.clear()
            walked = self._advance(self._book, commit.frame_index, commit.members)
        self._book = walked.book
        self._book.settle(commit.frame_index)
        undecided = self._window.pop(commit.frame_index)
        self.prompts.settle(commit.frame_index)
        margin = commit.margin if math.isfinite(commit.margin) else None
        info = CommitInfo(commit.exact, commit.lag, commit.loss_bound, margin)
        latest = self._walk[-1].book if self._walk else walked.book
        tracks = latest.recognised_now(walked.tracks)
        start = time.perf_counter()
        chosen = {track.id: member for track, member in zip(tracks, commit.members, strict=True)}
        self.seeds.learn(commit.frame_index, chosen, commit.exact, commit.loss_bound)
        self._learning_ms += (time.perf_counter() - start) * 1e3
        scene = walked.scene if tracks is walked.tracks else None
        scene = scene or _compose(commit.frame_index, undecided, commit.members, tracks)
        evidence = self._evidence(undecided.percepts, commit.members, tracks)
        return dataclasses.replace(scene, kind="final", commit=info, evidence=evidence)

    def _evidence(self, percepts: Percepts, members: tuple[int, ...], tracks: list[Track]) -> Evidence:
        embeddings = {track.id: track.embedding for track in tracks if track.embedding is not None}
        model = (self._network.name, self._network.hash, self._network.generation)
        return Evidence.of(percepts, members, [track.id for track in tracks], embeddings, model)

    def _advance(self, book: IdentityBook, frame_index: int, members: tuple[int, ...]) -> _Walked:
        after = book.look_ahead()
        percepts = self._window[frame_index].percepts
        tracks = self.prompts.pinned(frame_index, percepts.masks, members, after.step(frame_index, percepts, members))
        return _Walked(frame_index, members, after, tracks)

    def _look_ahead(self, path: list[tuple[int, tuple[int, ...]]]) -> Scene:
        """The newest frame's scene, with the ids it will have if the best path so far turns out final.

        Identities already walked stay as long as the path agrees with them, so that a frame usually costs
        one step of the book.

        Args:
            path: (frame index, members) of every undecided frame along the best path, oldest first.
        """
        agreed = 0
        for walked, (index, members) in zip(self._walk, path, strict=False):
            if (walked.frame_index, walked.members) != (index, members):
                break
            agreed += 1
        del self._walk[agreed:]
        for index, members in path[agreed:]:
            book = self._walk[-1].book if self._walk else self._book
            self._walk.append(self._advance(book, index, members))
        newest = self._walk[-1]
        newest.scene = _compose(newest.frame_index, self._window[newest.frame_index], newest.members, newest.tracks)
        return newest.scene


def _compose(
    frame_index: int,
    undecided: _Undecided,
    members: tuple[int, ...],
    tracks: list[Track],
) -> Scene:
    """The provisional scene of a frame whose members and tracks are known."""
    percepts = undecided.percepts
    values = [track.label for track in tracks]
    picture = undecided.pictures.get(members)
    if picture is None:
        picture = undecided.pictures[members] = Picture.of(percepts, members, values, undecided.frame_size)
    picture = picture.called(values)
    objects = []
    stability = dict(zip([track.id for track in tracks], picture.stabilities, strict=True))
    for track in sorted(tracks, key=lambda track: track.label):
        if track.label not in picture.extents:
            continue
        box, area = picture.extents[track.label]
        age = frame_index - track.born
        # Sure over time, unsure in one image: what the network has yet to learn.
        evidence = video_evidence(track.foreground, age)
        objects.append(
            Object(
                id=track.id,
                label=track.label,
                score=float(np.clip(track.score, 0.0, 1.0)),
                box=box,
                area=area,
                age=age,
                novelty=float(np.clip(evidence * (1.0 - track.score), 0.0, 1.0)),
                foreground=float(np.clip(track.foreground, 0.0, 1.0)),
                uncertainty=uncertainty(track.score, evidence, stability[track.id]),
            )
        )
    return Scene(
        frame_index=frame_index,
        kind="provisional",
        labels=picture.labels,
        objects=tuple(objects),
        source=undecided.source,
        t_capture_ns=undecided.t_capture_ns,
        pts_ns=undecided.pts_ns,
        look=look_list(objects, percepts, members, undecided.frame_size, picture.regions),
    )


def warm_up(
    config: EngineConfig,
    network: Network,
    frames: int = 8,
    flow: FlowNetwork | None = None,
    background: BackgroundCue | None = None,
) -> None:
    """Compile and allocate everything before the first real frame, on a throw-away pipeline.

    A textured patch moves over textured ground, is decided at once and tracked, so that what learns from
    decisions runs too; without this the first frames of a cold start would take seconds.
    """
    height, width = network.size
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8), (width, height))
    patch = cv2.resize(rng.integers(0, 256, (height // 16, height // 16, 3), np.uint8), (height // 2, height // 2))
    at_once = dataclasses.replace(config, select=dataclasses.replace(config.select, lag=0))
    pipeline = Pipeline(at_once, network, flow, background)
    for index in range(frames):
        image, x, y = ground.copy(), width // 8 + 8 * index, height // 4
        image[y : y + len(patch), x : x + len(patch)] = patch
        pipeline.step(Frame(image, index, time.time_ns(), "warm-up"))
        if index == 2:
            pipeline.track(box=(x, y, x + len(patch), y + len(patch)))
    pipeline.flush()
