"""A recording's file, which must be a new one."""

import time
from pathlib import Path

from engine.errors import StoreError, UsageError


def new_file(option: str, path: Path, suffix: str) -> Path:
    """The file to write, its folder made; `strftime` fields (`%Y%m%d-%H%M%S`) are filled in with the local time.

    Args:
        option: whose file it is, e.g. `--mcap`. suffix: what readers go by.

    Raises:
        UsageError: another suffix.
        StoreError: there is a recording already: two runs into one file would leave one of them.
    """
    if path.suffix.lower() != suffix:
        raise UsageError(f"{option} {path}: a name ending in {suffix} is needed, readers go by it")
    path = Path(time.strftime(str(path))) if "%" in str(path) else path
    try:
        size = path.stat().st_size if path.exists() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{option} {path}: {error.strerror or error}") from None
    if size:
        raise StoreError(
            f"{option} {path}: exists already ({size} bytes); move it away, or put the time into the name: "
            f"run-%Y%m%d-%H%M%S{suffix}"
        )
    return path
