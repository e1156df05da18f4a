"""Frame rate of the engine with and without AMD learning beside it (part of `benchmarks.online_amd`).

First the engine records the clip. Every run then begins with a copy of that store, goes on recording to it, and shows
the clip as fast as it goes; in one run of two the learner, a process of its own, reads the same store and is in the
middle of a round. The order is ABBA: what the machine does over a minute is the same on both sides.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cpu_use import processor_s
from benchmarks.latency import run_once
from engine.errors import ModelError, SourceError
from engine.registry import Registry
from learning.amd.checkpoint import load_amd
from learning.amd.export import export

CUES = ("registry", "network")
LEAST_FPS = 30.0
_LONGEST_WAIT_S = 120.0
_BEGINS = "learns from"


@contextmanager
def learner(store: Path, registry: Path, base: Path) -> "Iterator[subprocess.Popen[str]]":
    """The online learner, in the middle of a round.

    Raises:
        ModelError: it ended, or found too little to learn from.
    """
    command = [sys.executable, "-m", "learning.amd.online", "--every", "0.5"]
    command += ["--store", str(store), "--registry", str(registry), "--base", str(base)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        give_up_s = time.monotonic() + _LONGEST_WAIT_S
        while not any(_BEGINS in line for line in list(said)):
            if process.poll() is not None or time.monotonic() > give_up_s:
                what = said[-1].strip() if said else f"nothing said in {_LONGEST_WAIT_S:g} s"
                raise ModelError(f"the learner does not learn ({what}): give a longer clip in which more moves")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)
        reader.join(5)
        if process.stdout is not None:
            process.stdout.close()


def measure(base: Path, source: str, pairs: int, frames: int, cue: str, console: Console) -> dict[str, Any]:
    """Frames per second of every run, and the share of a core the learner took.

    Args:
        cue: "registry" (the base is in it) or "network".

    Raises:
        EngineError: the base cannot be used, the engine fails, or the learner has nothing to learn from.
    """
    with tempfile.TemporaryDirectory(prefix="online-amd-") as scratch:
        folder = Path(scratch)
        registry = Registry(folder / "registry")
        network, channel, _ = load_amd(base)
        export(network, channel, folder / "base.onnx", "base")
        first = registry.place(folder / "base.onnx", {})
        recorded = folder / "recorded"
        recorded.mkdir()
        extra = ["--record", str(recorded / "store.db"), "--set", "record.interval=1"]
        kept = _engine(source, frames, extra)["record"]["kept"]
        rows = []
        for number in range(2 * pairs):
            with_learner = number % 4 in (1, 2)
            own = folder / f"run{number}"
            shutil.copytree(recorded, own)
            extra = ["--loop", "--record", str(own / "store.db"), "--background"]
            extra += [str(registry.folder) if cue == "registry" else "network"]
            row: dict[str, Any] = {"learner": with_learner}
            if with_learner:
                with learner(own / "store.db", registry.folder, base) as process:
                    begin_s, took_s = time.monotonic(), processor_s(process.pid)
                    stats = _engine(source, frames, extra)
                    if process.poll() is not None:
                        raise ModelError(f"the learner ended early with exit code {process.returncode}")
                    row["share"] = (processor_s(process.pid) - took_s) / (time.monotonic() - begin_s)
            else:
                stats = _engine(source, frames, extra)
            rows.append(row | {"fps": stats["fps"], "total_p50_ms": stats["latency_ms"]["total"]["p50"]})
            console.print(f"run {number + 1} of {2 * pairs}: {rows[-1]}", highlight=False)
        current = registry.current()
        swapped = current is not None and current.name != first.name
    return {"cue": cue, "frames": frames, "recorded": kept, "swapped": swapped, "runs": rows, **summary(rows)}


def _engine(source: str, frames: int, extra: list[str]) -> dict[str, Any]:
    try:
        return run_once(source, frames, extra)
    except SystemExit as error:
        raise SourceError(str(error).removeprefix("error: ")) from None


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the paired loss of neighbouring runs as a share of the frame rate without the learner.

    Args:
        rows: one per run, in the order they were made; two neighbours, one of each kind, are a pair.
    """
    fps: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        fps[row["learner"]].append(row["fps"])
    lost = [1 - on / off for on, off in zip(fps[True], fps[False], strict=True)]
    return {
        "fps_without": statistics.median(fps[False]),
        "fps_with": statistics.median(fps[True]),
        "lost": statistics.median(lost),
        "share": statistics.median([row["share"] for row in rows if row["learner"]]),
    }


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table("learner", "fps, median", "fps of each run", "share of a core")
    table.title, table.title_justify = f"engine flat out, cue {content['cue']}", "left"
    for on in (False, True):
        runs = " ".join(f"{row['fps']:.1f}" for row in content["runs"] if row["learner"] == on)
        middle = content["fps_with" if on else "fps_without"]
        table.add_row("yes" if on else "no", f"{middle:.1f}", runs, f"{content['share']:.2f}" if on else "")
    console.print(table)
    console.print(
        f"lost {content['lost']:.1%}, median of {len(content['runs']) // 2} pairs; wanted: {LEAST_FPS:g} fps or more",
        highlight=False,
    )
