"""What a figure was measured on."""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.errors import StoreError


def describe() -> dict[str, Any]:
    """Processor, cores, Python and the versions of the packages that decide speed."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    except OSError:
        pass
    packages = ("numpy", "numba", "opencv-python-headless", "onnxruntime", "pyzmq")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }


def write_report(path: Path | None, result: dict[str, Any]) -> None:
    """Write `result` with the machine it was measured on as JSON, folders included; nothing without a path.

    Raises:
        StoreError: it cannot be written there.
    """
    if path is None:
        return
    text = json.dumps({"machine": describe(), **result}, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"--json {path}: {error.strerror or error}; give a file that can be written") from None


def finish(path: Path | None, result: dict[str, Any]) -> int:
    """`write_report` as the last act of a command: its exit code, and one line where it fails."""
    try:
        write_report(path, result)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
