"""One recording, mined by whichever process: the unit that is repeated when its worker dies."""

import functools
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from engine.config import EngineConfig
from engine.errors import ModelError, SourceError, StoreError
from engine.perceive.network import Network
from engine.record.recorder import Recorder
from learning.mine.fetch import local_copy
from learning.mine.offline import Tally, mine_view
from learning.mine.recordings import Recording, identity
from learning.mine.shards import MinedStore, ShardWriter
from learning.mine.views import open_views


@dataclass(frozen=True)
class Job:
    """What is to be done with one recording.

    Attributes:
        run: of the command, names the folder of unfinished files.
        model_hash: of the file `model` must be.
    """

    recording: Recording
    out: str
    run: str
    model: str
    model_hash: str
    config: EngineConfig


@dataclass(frozen=True)
class Outcome:
    """What became of a recording.

    Attributes:
        account: of the new shard, None where there is none.
        problem: why the recording could not be mined; empty where it could or was already.
    """

    recording: Recording
    account: dict[str, Any] | None
    problem: str = ""


@functools.lru_cache(maxsize=1)
def _network(path: str, digest: str) -> Network:
    """The model of this process: loaded once, whatever the number of recordings.

    Raises:
        ModelError: not the file it was when the command began.
    """
    cv2.setNumThreads(1)
    network = Network(Path(path), threads=1)
    if network.hash != digest:
        raise ModelError(f"model {path} has hash {network.hash}, the command began with {digest}: give every worker it")
    return network


def mine_recording(job: Job) -> Outcome:
    """Mine one recording into its shard, unless it is there.

    Raises:
        StoreError: the store cannot be written. ModelError: the model is not there. Both concern every recording.
    """
    recording, store = job.recording, MinedStore(job.out)
    try:
        with local_copy(recording) as path:
            content = identity(str(path))
            if store.has(content):
                return Outcome(recording, None)
            return Outcome(recording, _mine(job, store, path, content))
    except (StoreError, ModelError):
        raise
    except SourceError as error:
        return Outcome(recording, None, str(error))
    except Exception as error:  # what a damaged file makes a decoder raise is not foreseeable
        return Outcome(
            recording, None, f"{recording.uri}: {' '.join(f'{type(error).__name__}: {error}'.split())[:200]}"
        )


def _mine(job: Job, store: MinedStore, path: Path, content: str) -> dict[str, Any]:
    begin_s = time.monotonic()
    network = _network(job.model, job.model_hash)
    loaded_s, cpu_s = time.monotonic(), time.process_time()
    views = open_views(job.recording, path)
    writer = ShardWriter(store.part_folder(job.run), content)
    tally = Tally()
    try:
        recorder = Recorder(writer, job.config.record, held_frames=job.config.select.lag + 1)
        for view in views:
            mine_view(view, job.config, network, recorder, tally)
        recorder.close()
        account = {
            "identity": content,
            "uri": job.recording.uri,
            "origin": job.recording.origin,
            "bytes": job.recording.size,
            "views": tally.views,
            "frames": tally.frames,
            "exact": tally.exact,
            "forced": tally.forced,
            "loss_bound": tally.loss_bound,
            "lag_max": tally.lag_max,
            "lost": dict(tally.lost),
            "kept": writer.frames,
            "selections": writer.selections,
            "not_kept": dict(recorder.causes),
            "megapixels": round(tally.megapixels, 4),
            "shard_bytes": writer.bytes,
            "began_s": round(time.time() - (time.monotonic() - begin_s), 3),
            "load_s": round(loaded_s - begin_s, 3),
            "wall_s": round(time.monotonic() - loaded_s, 3),
            "cpu_s": round(time.process_time() - cpu_s, 3),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "pid": os.getpid(),
        }
        writer.finish(account)
        store.commit(writer.path, content)
    finally:
        writer.discard()
    return account
