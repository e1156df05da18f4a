"""Stored frames become training samples, once: what is learned does not change while the robot goes on recording."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path

import cv2
import numpy as np

from engine.config import PerceiveConfig
from engine.errors import StoreError
from engine.perceive.motion import FLOW_SIZE, Motion, MotionEstimator
from engine.percepts import Percepts
from engine.scene import CommitInfo, Object, Scene
from learning.labels import LabelRules, Tally, Watched, label_frame
from learning.retrain.settings import Settings
from learning.retrain.split import Moment, split_frames
from learning.store import FrameRecord, SelectionStore
from learning.synthesis.sample import SIZE, Origin, Sample
from learning.synthesis.shards import write_shard

RULES = LabelRules(min_still_score=0.5)
"""As for clips, but what was foreground long enough to be remembered is an object while it rests, too: the engine saw
it move before."""

_GRID = (SIZE[0] // 4, SIZE[1] // 4)
_SHARD_SAMPLES = 48
_SAMPLE_BYTES = 600_000
"""Of one sample in a shard, rounded up."""

_ACCOUNT = "account.json"


@dataclass(frozen=True)
class Account:
    """What the samples of a folder came from.

    Attributes:
        stored: frames in the store.
        train: samples that teach.
        blocks: held-out block of every sample of the held_* shards, in order.
        frames, masks: what became of the frames and selections looked at, by cause.
    """

    stored: int
    train: int
    blocks: tuple[str, ...]
    frames: dict[str, int]
    masks: dict[str, int]


def _motion(record: FrameRecord, image: np.ndarray) -> Motion | None:
    """Motion of a stored frame (uint8 [256, 448, 3] BGR) as the engine saw it; None after a cut."""
    previous = record.previous_image()
    if previous is None:
        return None
    estimator = MotionEstimator()
    estimator.step(_fit(previous))
    motion = estimator.step(image)
    return None if motion is None or motion.mean_difference > PerceiveConfig().cut_difference else motion


def _fit(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)


def _residual(motion: Motion) -> np.ndarray:
    """Motion against the camera, float32 [2, h, w] in pixels of the working grid."""
    small = cv2.resize(motion.residual, _GRID[::-1], interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    return small * np.array([_GRID[1] / FLOW_SIZE[1], _GRID[0] / FLOW_SIZE[0]], np.float32).reshape(2, 1, 1)


def sample_of(record: FrameRecord, rules: LabelRules, tally: Tally) -> Sample | None:
    """Training sample of one stored frame by the rules of `learning.labels`; None when it is certain of nothing.

    The doubt kept with the frame stands for the cues of the network that found the selections, so that neither the
    base nor that network is asked again. Where it is high nothing is claimed: such pixels are ignored.
    """
    image = _fit(record.image())
    motion = _motion(record, image)
    labels = np.zeros(SIZE, np.uint16)
    foreground = cv2.resize(record.doubt(), _GRID[::-1], interpolation=cv2.INTER_AREA)
    objects, consistent = [], set()
    for label, selection in enumerate(record.selections, start=1):
        mask = cv2.resize(selection.mask().astype(np.uint8), SIZE[::-1], interpolation=cv2.INTER_AREA) > 0
        labels[mask] = label
        foreground[cv2.resize(mask.astype(np.uint8), _GRID[::-1], interpolation=cv2.INTER_NEAREST) > 0] = (
            selection.foreground
        )
        objects.append(
            Object(
                id=selection.object_id,
                label=label,
                score=selection.score,
                box=(0, 0, 0, 0),
                area=int(mask.sum()),
                age=selection.age,
                novelty=selection.novelty,
                foreground=selection.foreground,
            )
        )
        if selection.age >= rules.run - 1:
            consistent.add(selection.object_id)
    residual = None if motion is None else _residual(motion)
    nothing = np.empty((0, *_GRID), np.float32)
    percepts = Percepts(
        masks=nothing > 0,
        scores=np.empty(0, np.float32),
        background=1 - foreground,
        embedding=None,
        flow=residual,
        residual=residual,
        logits=nothing,
    )
    commit = CommitInfo(exact=record.exact, lag=record.lag, loss_bound=record.loss_bound)
    scene = Scene(record.number, "final", labels, tuple(objects), record.source, record.capture_ns, commit=commit)
    found = label_frame(record.number, Watched(image, percepts, scene), consistent, rules, tally)
    if found is None or motion is None:
        return None
    tally.frames["used"] += 1
    return Sample(np.ascontiguousarray(image[..., ::-1]), motion.features, found.ids, found.kinds, Origin.STORE)


def _turn_by_turn(blocks: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """(block, frame): one frame of every block, then the next one of every block."""
    # From the middle of each block outwards would be no better: blocks are shorter than what changes slowly.
    for row in zip_longest(*([(name, frame) for frame in frames] for name, frames in blocks.items())):
        yield from (item for item in row if item is not None)


def take_selections(
    store_path: Path, folder: Path, settings: Settings, step: Callable[[int, int], None] = lambda done, total: None
) -> Account:
    """Write train_* and held_* shards of a store into `folder`, which appears when it is complete.

    Args:
        step: told how many frames of how many are done.

    Raises:
        StoreError: the store is not readable, empty, too short, or certain of nothing; or no room for the samples.
    """
    tally = Tally()
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with SelectionStore(store_path) as store:
        moments = [
            Moment(
                frame.id,
                f"{frame.session}/{frame.source}",
                frame.capture_ns if frame.pts_ns is None else frame.pts_ns,
                frame.usefulness,
            )
            for frame in store.frames()
        ]
        if not moments:
            raise StoreError(f"--store {store_path}: holds no frame: record with python -m engine.run … --record STORE")
        split = split_frames(moments)
        held = list(_turn_by_turn(split.held))
        total = min(len(split.train), settings.frames) + min(len(held), settings.held_frames)
        _require_space(folder.parent, total * _SAMPLE_BYTES)
        part.mkdir(parents=True)
        done = 0

        def samples(frames: Sequence[int], limit: int) -> Iterator[tuple[int, Sample]]:
            nonlocal done
            found = 0
            for index, frame in enumerate(frames):
                try:
                    sample = sample_of(store.frame(frame), RULES, tally)
                except StoreError:
                    tally.frames["evicted meanwhile, or damaged"] += 1
                    continue
                if sample is not None:
                    yield index, sample
                    found, done = found + 1, done + 1
                    step(done, total)
                if found == limit:
                    return

        train = _write(part, "train", (sample for _, sample in samples(split.train, settings.frames)))
        blocks: list[str] = []

        def judged() -> Iterator[Sample]:
            for index, sample in samples([frame for _, frame in held], settings.held_frames):
                blocks.append(held[index][0])
                yield sample

        _write(part, "held", judged())
    if not train or not blocks:
        causes = ", ".join(f"{name} {count}" for name, count in (tally.frames + tally.masks).most_common(4))
        what = "no frame to learn from" if not train else "no frame to judge by"
        raise StoreError(f"--store {store_path}: {what} among {len(moments)} ({causes}): record longer")
    account = Account(len(moments), train, tuple(blocks), dict(tally.frames), dict(tally.masks))
    (part / _ACCOUNT).write_text(json.dumps(asdict(account), indent=1), encoding="utf-8")
    part.rename(folder)
    return account


def read_account(folder: Path) -> Account:
    """What `take_selections` returned when it wrote `folder`."""
    content = json.loads((folder / _ACCOUNT).read_text(encoding="utf-8"))
    return Account(**{**content, "blocks": tuple(content["blocks"])})


def _write(folder: Path, prefix: str, samples: Iterator[Sample]) -> int:
    """Write samples into shards; returns how many there were."""
    count = 0
    while chunk := list(islice(samples, _SHARD_SAMPLES)):
        write_shard(folder / f"{prefix}_{count // _SHARD_SAMPLES:04d}.shard", len(chunk), chunk)
        count += len(chunk)
    return count


def _require_space(folder: Path, need: int) -> None:
    """Raise while nothing is lost: a memory-mapped file on a full disk kills the process.

    Raises:
        StoreError: less space than `need` bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < need:
        raise StoreError(
            f"{folder}: {free / 1e6:.0f} MB free, the samples need {need / 1e6:.0f} MB: make room, give another --out, "
            "or lower --frames"
        )
