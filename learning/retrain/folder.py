"""The folder of one retraining: which one an interrupted command goes on with, and what is left at the end."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from engine.errors import StoreError

RESULT, MODEL, REPORT = "result.json", "model.pt", "report.html"
_REQUEST = "request.json"
_NAME = re.compile(r"run-(\d{4,})")
_LEFT_AT_THE_END = (RESULT, MODEL, REPORT, _REQUEST)


def open_run(out: Path, request: dict[str, Any]) -> Path:
    """The folder of the newest run in `out` if it asked the same and is not finished, else a new one.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        runs = sorted((int(m[1]), path) for path in out.iterdir() if (m := _NAME.fullmatch(path.name)))
        if runs and not (runs[-1][1] / RESULT).exists() and _asked(runs[-1][1]) == request:
            return runs[-1][1]
        folder = out / f"run-{runs[-1][0] + 1 if runs else 1:04d}"
        folder.mkdir()
        write_text(folder / _REQUEST, json.dumps(request, indent=1))
    except OSError as error:
        raise StoreError(f"--out {out}: {error.strerror or error}") from None
    return folder


def _asked(folder: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def write_text(path: Path, text: str) -> None:
    """Write a small file, complete or not at all.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def tidy(folder: Path) -> None:
    """Delete the samples and the checkpoint of a finished run; they can be made again."""
    for path in folder.iterdir():
        if path.name in _LEFT_AT_THE_END:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
