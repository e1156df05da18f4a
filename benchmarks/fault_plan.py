"""Random faults for the cameras of a soak run, and how soon each camera's frames were back."""

import random
import statistics
import threading
import time
from collections import Counter

from benchmarks.fault_server import MjpegServer

FAULTS = ("cut", "stall", "kill", "corrupt")


class FaultPlan:
    """Breaks one camera after the other, at random moments, in random ways, on a thread of its own.

    Args:
        cameras: by the name the engine knows them under.
        seed: decides moments and faults.
        pause_s: mean time between faults of one camera.
    """

    def __init__(self, cameras: dict[str, MjpegServer], seed: int = 0, pause_s: float = 10.0) -> None:
        self.counts: Counter[str] = Counter()
        self._cameras = cameras
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._awaited: dict[str, tuple[str, int]] = {}
        self._recoveries_s: dict[str, list[float]] = {fault: [] for fault in FAULTS}
        self._threads = [
            threading.Thread(target=self._trouble, args=(name, random.Random(seed + number)), daemon=True)
            for number, name in enumerate(cameras)
        ]

    def start(self) -> None:
        """Begin to break things."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Mend everything and break nothing more."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def seen(self, name: str, t_capture_ns: int) -> None:
        """A scene of camera `name` has come; the first one captured after a fault ends its recovery time."""
        with self._lock:
            fault, mended_ns = self._awaited.get(name, ("", 0))
            if fault and t_capture_ns > mended_ns:
                del self._awaited[name]
                self._recoveries_s[fault].append((time.time_ns() - mended_ns) / 1e9)

    def recovery_s(self) -> dict[str, dict[str, float]]:
        """Fault -> median and longest time from its end to the first scene published of the camera."""
        with self._lock:
            return {
                fault: {"p50": round(statistics.median(values), 2), "max": round(max(values), 2)}
                for fault, values in self._recoveries_s.items()
                if values
            }

    def _trouble(self, name: str, rng: random.Random) -> None:
        camera = self._cameras[name]
        while not self._stop.wait(rng.uniform(0.5, 1.5) * self._pause_s):
            fault = rng.choice(FAULTS)
            self.counts[fault] += 1
            if fault == "cut":
                camera.cut_mid_frame()
            elif fault == "stall":
                camera.frozen = True
                self._stop.wait(rng.uniform(0.5, 6.0))
                camera.frozen = False
            elif fault == "kill":
                camera.kill()
                self._stop.wait(rng.uniform(0.2, 4.0))
                camera.start()
            else:
                camera.corrupt = True
                self._stop.wait(rng.uniform(0.5, 3.0))
                camera.corrupt = False
            with self._lock:
                self._awaited[name] = (fault, time.time_ns())
