"""Who mines: this process, or the workers of a Ray that is started for the command or was there before."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from engine.errors import EngineError, StoreError, UsageError
from learning.mine.job import Job, Outcome, mine_recording

LOCAL = "local"
_PENDING_PER_CORE = 4
"""Jobs handed to Ray at a time, per core: enough to keep every worker busy, few enough for any number of recordings."""

_OBJECT_STORE_BYTES = 96 * 2**20
"""Jobs and accounts are all that goes through Ray's object store; the default would take a third of the memory."""


_STARTS = 5
"""Times Ray is started: it gives its own processes thirty seconds, which a busy machine may not have."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers say what they want themselves; what Ray would do to an accelerator nobody uses is not asked for.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A busy machine takes minutes to import torch; a worker that is slow to start is not lost.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
"""What Ray reads when it is imported or starts; what is set already counts."""


def parse_workers(text: str) -> int | str:
    """`--workers`: a number, `local` (as many as cores), or the address of a Ray cluster.

    Raises:
        UsageError: none of these.
    """
    if text == LOCAL:
        return len(os.sched_getaffinity(0))
    if text == "auto" or text.startswith("ray://") or ":" in text:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--workers {text}: must be a number from 1 on, local, auto, or ray://HOST:PORT")
    return int(text)


def run_jobs(jobs: Sequence[Job], workers: int | str, retries: int) -> Iterator[Outcome]:
    """Outcomes in the order they come.

    Args:
        workers: as `parse_workers` has it.
        retries: how often a recording may lose its worker before it is given up.

    Raises:
        UsageError: Ray is needed and not installed.
        StoreError, ModelError: what concerns every recording.
    """
    if workers == 1:
        for job in jobs:
            yield mine_recording(job)
        return
    ray = import_ray("--workers above 1")
    with RayCluster(ray, workers):
        yield from _run_on_ray(ray, jobs, retries)


def import_ray(what: str) -> Any:
    """The module `ray`, which sends nothing to anybody.

    Raises:
        UsageError: it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError(f"{what} needs Ray: pip install 'unseen-engine[ray]', or give --workers 1") from None
    return ray


class RayCluster:
    """Ray for the length of a command: a cluster of this machine only, or a connection to one that is there.

    Args:
        workers: processes of a local one, or the address of a running one.

    Raises:
        StoreError: it cannot be started or reached.
    """

    def __init__(self, ray: Any, workers: int | str) -> None:
        self._ray = ray
        options: dict[str, Any] = {"address": workers}
        if isinstance(workers, int):
            # With RAY_ADDRESS set there is a cluster already, and it has what it has.
            here = {"num_cpus": workers, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
            options = {} if os.environ.get("RAY_ADDRESS") else here
        for attempt in range(_STARTS):
            try:
                ray.init(**options, log_to_driver=False, logging_level="error")
                return
            except Exception as error:  # connection errors of several libraries
                ray.shutdown()
                if attempt == _STARTS - 1:
                    reason = " ".join(str(error).split())[:200]
                    raise StoreError(f"--workers {workers}: Ray does not start or answer: {reason}") from None

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ray.shutdown()


def _run_on_ray(ray: Any, jobs: Sequence[Job], retries: int) -> Iterator[Outcome]:
    # Ray repeats a task whose worker died; what the task itself raises concerns every recording and ends the run.
    task = ray.remote(num_cpus=1, max_retries=retries, retry_exceptions=False)(mine_recording)
    window = max(1, int(_PENDING_PER_CORE * ray.cluster_resources().get("CPU", 1)))
    waiting = iter(jobs)
    running: dict[Any, Job] = {}
    while True:
        while len(running) < window and (job := next(waiting, None)) is not None:
            running[task.remote(job)] = job
        if not running:
            return
        for reference in ray.wait(list(running), num_returns=1)[0]:
            yield _outcome(ray, reference, running.pop(reference), retries)


def _outcome(ray: Any, reference: Any, job: Job, retries: int) -> Outcome:
    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, EngineError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:  # killed by the memory monitor, a crash in a decoder, a machine that left
        reason = " ".join(str(error).split())[:120]
        return Outcome(job.recording, None, f"{job.recording.uri}: lost its worker {retries + 1} times: {reason}")
