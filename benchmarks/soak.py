"""Memory and latency over a long run of the engine on the built-in scene.

    python -m benchmarks.soak --json FILE [--frames 10000]

The engine runs as a process of its own with a subscriber attached; its resident memory is read every second.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from streaming.subscriber import MaskSubscriber


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; 0 once it is gone (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


def main() -> int:
    """Print one line per quantity, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    options = parser.parse_args()
    memory_mb: list[float] = []
    received = 0
    with tempfile.TemporaryDirectory() as folder:
        stats_file, endpoint = Path(folder) / "stats.json", f"ipc://{folder}/masks"
        command = [sys.executable, "-m", "engine.run", "--source", f"demo://?frames={options.frames}"]
        command += ["--publish", endpoint, "--stats-json", str(stats_file)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with MaskSubscriber(endpoint, kind="provisional") as subscriber:
            next_sample_s = time.monotonic()
            while process.poll() is None:
                received += subscriber.read(timeout_s=0.2) is not None
                if time.monotonic() >= next_sample_s:
                    next_sample_s += 1.0
                    memory_mb.append(resident_mb(process.pid))
        if process.returncode:
            raise SystemExit(process.stderr.read().strip().splitlines()[-1])
        stats = json.loads(stats_file.read_text(encoding="utf-8"))
    memory_mb = [value for value in memory_mb if value]
    quarter = max(1, len(memory_mb) // 4)
    result = {
        "frames": stats["frames"],
        "received": received,
        "fps": stats["fps"],
        "latency_ms": stats["latency_ms"]["total"],
        "age_ms": stats["age_ms"],
        "peak_rss_mb": stats["peak_rss_mb"],
        "rss_second_quarter_mb": round(statistics.median(memory_mb[quarter : 2 * quarter] or memory_mb), 1),
        "rss_last_quarter_mb": round(statistics.median(memory_mb[-quarter:]), 1),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
