"""Names of what the engine says on ROS, live (`ros_bridge`) and recorded (`--mcap`)."""

import re
import zlib

IMAGE = "image/compressed"
LABELS = "labels"
DETECTIONS = "detections"
LABEL_INFO = "label_info"

DEFAULT_NAMESPACE = "/unseen"


class Namespaces:
    """Gives every source a namespace of its own, the same after every restart.

    Args:
        base: namespace of the engine, e.g. `/unseen`. chosen: source -> namespace, for those that have their own.
    """

    def __init__(self, base: str, chosen: dict[str, str]) -> None:
        self._base = base
        self._of = dict(chosen)

    def of(self, source: str) -> str:
        """Namespace of `source`; what ROS does not allow in a name becomes `_`."""
        if source not in self._of:
            token = re.sub(r"[^A-Za-z0-9_]", "_", source)
            token = token if token[:1].isalpha() else f"source_{token}"
            if f"{self._base}/{token}" in self._of.values():
                token += f"_{zlib.crc32(source.encode()):08x}"  # `cam-1` and `cam_1` at once
            self._of[source] = f"{self._base}/{token}"
        return self._of[source]

    def frame_id(self, source: str) -> str:
        """The optical frame of a source whose camera names none."""
        return f"{self.of(source).rpartition('/')[2]}_optical_frame"
