"""python -m learning.amd.online: AMD goes on learning from what the engine records, beside the running engine.

    python -m engine.run --camera 0 --record STORE --background REGISTRY
    python -m learning.amd.online --store STORE --registry REGISTRY --base model.pt

It reads the newest frames of the store, learns with an average of its weights, and places the average in the registry
only when it rebuilds held-out frames better than what runs. Off unless started; the engine needs no torch.
"""

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.errors import EngineError, StoreError, UsageError
from engine.registry import Registry
from learning.amd.adapt import fit
from learning.amd.channel import RULES, segment_motion
from learning.amd.checkpoint import load_amd
from learning.amd.export import export
from learning.amd.gate import MIN_EXPLAINED, PairBuffer, Verdict, judge
from learning.amd.objective import held_out_distances, reconstruction, to_images
from learning.networks.amd import Amd
from learning.pretrain import follow
from learning.store.reader import SelectionStore

_NICEST = 19
_CHANNEL_BATCH = 16


@dataclass(frozen=True)
class OnlineSettings:
    """How much is learned, how carefully, and at which cost.

    Attributes:
        steps: updates per round; after each round the held-out pairs judge.
        batch: pairs per update.
        rate: of Adam.
        decay: of the average of the weights.
        capacity: newest pairs kept for learning; a quarter as many for judging.
        min_pairs: usable pairs before anything is learned; a quarter as many held out.
        hold_one_in: of so many pairs one judges and never teaches.
        max_gap: captured frames between the two of a pair, at most.
        patience: rounds without promotion after which learning starts again from what runs.
        share: of one core, at most.
        channel: rule for the object's segment.
        min_gain: least fall of the held-out distance, as a share.
        min_explained: share of the unmoved frames' distance that motion must explain.
    """

    steps: int = 50
    batch: int = 4
    rate: float = 1e-4
    decay: float = 0.98
    capacity: int = 512
    min_pairs: int = 48
    hold_one_in: int = 5
    max_gap: int = 10
    patience: int = 4
    share: float = 0.25
    channel: str = "flow"
    min_gain: float = 0.005
    min_explained: float = MIN_EXPLAINED

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rate", "capacity", "min_pairs", "max_gap", "patience"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} {getattr(self, name)}: must be above 0")
        if not 0 < self.share <= 1:
            raise UsageError(f"--share {self.share:g}: must be above 0, at most 1")
        if self.hold_one_in < 2:
            raise UsageError(f"hold_one_in {self.hold_one_in}: must be at least 2")
        if self.channel not in RULES:
            raise UsageError(f"--channel {self.channel} is unknown: choose one of {', '.join(RULES)}")


class OnlineLearner:
    """Learns from pairs as they come, and says when the average of its weights is better than what runs.

    Args:
        network: what runs; copied.

    Attributes:
        running: what the engine has, as far as this learner knows.
        teach, hold: pairs to learn from and to judge by.
    """

    def __init__(self, network: Amd, settings: OnlineSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or OnlineSettings()
        self.running = copy.deepcopy(network).eval()
        self.teach = PairBuffer(self.settings.capacity)
        self.hold = PairBuffer(max(4, self.settings.capacity // 4))
        self._seen = 0
        self._rounds = 0
        self._rng = np.random.default_rng(seed)
        self._restart()

    def _restart(self) -> None:
        self._network = copy.deepcopy(self.running).train()
        self.average = copy.deepcopy(self.running).eval()
        rate = self.settings.rate
        self._optimiser = torch.optim.Adam(self._network.parameters(), rate, weight_decay=1e-6)
        self._rounds = 0

    @property
    def ready(self) -> bool:
        """Whether there is enough to learn from and to judge by."""
        return len(self.teach) >= self.settings.min_pairs and len(self.hold) >= max(2, self.settings.min_pairs // 4)

    def add(self, pair: np.ndarray) -> bool:
        """Take in a pair uint8 [2, 3, h, w]; whether it was of use. Neighbours in time judge or teach together."""
        block = self._seen // 4
        self._seen += 1
        buffer = self.hold if block % self.settings.hold_one_in == 0 else self.teach
        return buffer.add(pair)

    def round(self, pause: Callable[[float], None] = lambda seconds: None) -> Verdict:
        """Learn for `steps` updates, then judge; `pause` is told the processor time of each piece of work.

        A promoted average becomes what runs. After `patience` rounds in vain learning starts again from what runs.
        """
        if not self.ready:
            return Verdict(False, 0.0, 0.0, f"{len(self.teach)} usable pairs, {self.settings.min_pairs} are needed")
        pairs = self.teach.pairs()
        for _ in range(self.settings.steps):
            begin = time.process_time()
            self._step(pairs[self._rng.choice(len(pairs), self.settings.batch)])
            pause(time.process_time() - begin)
        begin = time.process_time()
        held = self.hold.pairs()
        before, unmoved = held_out_distances(self.running, held)
        after, _ = held_out_distances(self.average, held)
        pause(time.process_time() - begin)
        verdict = judge(before, after, unmoved, self.settings.min_gain, self.settings.min_explained)
        self._rounds += 1
        if verdict.promote:
            self.running = copy.deepcopy(self.average)
            self._rounds = 0
        elif self._rounds >= self.settings.patience:
            self._restart()
        return verdict

    def object_channel(self) -> int:
        """The object's segment of what runs, measured on the pairs it learned from."""
        pairs = self.teach.pairs()
        batches = (pairs[i : i + _CHANNEL_BATCH] for i in range(0, len(pairs), _CHANNEL_BATCH))
        return segment_motion(self.running, batches).channel(self.settings.channel)

    def _step(self, pairs: np.ndarray) -> None:
        mirrored = self._rng.random(len(pairs)) < 0.5
        pairs[mirrored] = pairs[mirrored][..., ::-1]
        loss = reconstruction(self._network, *to_images(pairs))
        if not torch.isfinite(loss):
            return
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 5.0)
        self._optimiser.step()
        follow(self.average, self._network, self.settings.decay)


class StoreFeed:
    """Pairs of neighbouring frames of a selection store, each once, also while an engine writes to it.

    Args:
        path: the store; it may come into being later.
    """

    def __init__(self, path: Path, max_gap: int) -> None:
        self._path, self._max_gap = path, max_gap
        self._last_id = 0
        self._before: dict[tuple[str, str], tuple[int, np.ndarray]] = {}

    def read(self, limit: int = 512) -> list[np.ndarray]:
        """New pairs uint8 [2, 3, h, w], at most those of the newest `limit` frames; none while there is no store.

        Raises:
            StoreError: what lies there is no store.
        """
        if not self._path.exists():
            return []
        found = []
        with SelectionStore(self._path) as store:
            fresh = [number for number in store.frame_ids() if number > self._last_id][-limit:]
            for number in fresh:
                self._last_id = number
                try:
                    record = store.frame(number)
                    image, key = fit(record.image()), (record.session, record.source)
                except StoreError:
                    continue  # damaged, or gone: the engine made room for a more useful one
                before = self._before.get(key)
                if before is not None and 0 < record.number - before[0] <= self._max_gap:
                    found.append(np.stack([before[1], image]))
                self._before[key] = (record.number, image)
        return found


class Throttle:
    """Keeps the processor time of this process at a share of the wall clock, by sleeping after work."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, seconds: float) -> None:
        """Sleep as long as `seconds` of work ask for."""
        time.sleep(seconds * (1 / self._share - 1))


def place(learner: OnlineLearner, registry: Registry, verdict: Verdict) -> str:
    """Export what runs now in the learner and make it current in the registry; the version's name.

    Raises:
        ModelError: the file is not fit to be placed.
        StoreError: the registry cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="amd-") as folder:
        file = Path(folder) / "amd.onnx"
        export(learner.running, learner.object_channel(), file, f"amd, online: {verdict.reason}")
        manifest = {"objective": "amd", "online": {"gain": verdict.gain, "error": verdict.error}}
        return registry.place(file, manifest).name


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m learning.amd.online", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="selection store an engine records to")
    parser.add_argument("--registry", type=Path, required=True, help="folder the engine's --background watches")
    parser.add_argument("--base", type=Path, required=True, metavar="MODEL.pt", help="AMD to begin with")
    parser.add_argument("--share", type=float, default=OnlineSettings.share, help="of one core (default 0.25)")
    parser.add_argument("--rate", type=float, default=OnlineSettings.rate, help="of Adam (default 1e-4)")
    parser.add_argument("--channel", help=f"{' | '.join(RULES)} (default: the rule that the base was made with)")
    parser.add_argument("--rounds", type=int, help="end after so many rounds (default: never)")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="between two looks for new frames")
    parser.add_argument("--idle-timeout", type=float, metavar="S", help="end when no new frame came for so long")
    args = parser.parse_args(argv)
    try:
        for name in ("every", "rounds", "idle_timeout"):
            value = getattr(args, name)
            if value is not None and value <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}: must be above 0")
        network, _, training = load_amd(args.base)
        rule = args.channel or training.get("channel_rule", OnlineSettings.channel)
        settings = OnlineSettings(share=args.share, rate=args.rate, channel=rule)
        _make_room_for_others()
        follow_store(
            OnlineLearner(network, settings),
            args.store,
            Registry(args.registry),
            args.every,
            args.rounds,
            args.idle_timeout,
        )
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def follow_store(
    learner: OnlineLearner,
    store: Path,
    registry: Registry,
    every_s: float,
    rounds: int | None = None,
    idle_timeout_s: float | None = None,
) -> int:
    """Read, learn, judge and place until `rounds` rounds are over or nothing came for `idle_timeout_s`.

    Returns:
        How many versions were placed.
    """
    feed, throttle = StoreFeed(store, learner.settings.max_gap), Throttle(learner.settings.share)
    placed, done, last_news = 0, 0, time.monotonic()
    while rounds is None or done < rounds:
        begin = time.process_time()
        fresh = feed.read(learner.settings.capacity)
        used = sum(learner.add(pair) for pair in fresh)
        throttle(time.process_time() - begin)
        last_news = time.monotonic() if fresh else last_news
        if not used or not learner.ready:
            # Nothing new to learn: what was learned of these frames already is not learned again.
            if idle_timeout_s is not None and time.monotonic() - last_news > idle_timeout_s:
                break
            time.sleep(every_s)
            continue
        print(f"round {done + 1}: learns from {len(learner.teach)} pairs, {len(learner.hold)} judge", flush=True)
        verdict = learner.round(throttle)
        done += 1
        refused = {**learner.teach.refused}
        print(f"round {done}: {len(learner.teach)} pairs, refused {refused}; {verdict.reason}", flush=True)
        if verdict.promote:
            begin = time.process_time()
            print(f"placed {place(learner, registry, verdict)}", flush=True)
            throttle(time.process_time() - begin)
            placed += 1
    return placed


def _make_room_for_others() -> None:
    """One thread at the lowest priority: the engine comes first."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if hasattr(os, "nice"):
        os.nice(_NICEST)


if __name__ == "__main__":
    sys.exit(main())
