"""Names of topics and nodes, and the quality of service each topic is published with."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.errors import UsageError
from streaming.ros import names

LABELS = names.LABELS
DETECTIONS = names.DETECTIONS
LABEL_INFO = names.LABEL_INFO
OVERLAY = "overlay/compressed"
CAMERA_INFO = "camera_info"
DIAGNOSTICS = "/diagnostics"  # one for the whole robot, where its tools look

TOPICS = (LABELS, DETECTIONS, LABEL_INFO, OVERLAY, CAMERA_INFO, DIAGNOSTICS.strip("/"))

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Qos:
    """Quality of service of a topic.

    Attributes:
        reliable: a reliable writer serves both kinds of readers; a best-effort one only best-effort readers.
        transient_local: late readers get the last messages ("latched" in ROS 1).
        depth: messages kept; also the longest backlog of a slow reader.
    """

    reliable: bool = True
    transient_local: bool = False
    depth: int = 5


SENSOR = Qos(reliable=False, depth=1)
"""How camera topics are read: matches every writer, and an old image is worth nothing."""

LATCHED = Qos(transient_local=True, depth=1)

_DEFAULTS = {LABEL_INFO: LATCHED}


def qos_table(overrides: Iterable[str]) -> dict[str, Qos]:
    """Quality of service per topic, defaults with `TOPIC=item,item...` applied.

    Items: reliable, best_effort, volatile, transient_local, depth=N.

    Raises:
        UsageError: unknown topic or item, depth below 1.
    """
    table = {topic: _DEFAULTS.get(topic, Qos()) for topic in TOPICS}
    for override in overrides:
        topic, separator, items = override.partition("=")
        if not separator or topic not in table:
            raise UsageError(f"--qos {override}: TOPIC=item,... with TOPIC one of {', '.join(TOPICS)} is needed")
        for item in items.split(","):
            table[topic] = _apply(table[topic], item.strip(), override)
    return table


def _apply(qos: Qos, item: str, override: str) -> Qos:
    match item:
        case "reliable" | "best_effort":
            return replace(qos, reliable=item == "reliable")
        case "volatile" | "transient_local":
            return replace(qos, transient_local=item == "transient_local")
    name, _, value = item.partition("=")
    if name == "depth" and value.isascii() and value.isdigit() and int(value) >= 1:
        return replace(qos, depth=int(value))
    known = "reliable, best_effort, volatile, transient_local, depth=N (N at least 1)"
    raise UsageError(f"--qos {override}: unknown item {item!r}; known: {known}")


def check_name(name: str, option: str) -> str:
    """A ROS name with a leading slash and none at the end, e.g. `/unseen/front`.

    Raises:
        UsageError: a part between slashes is empty, begins with a digit or holds anything but letters, digits, `_`.
    """
    parts = name.strip("/").split("/")
    if not all(_TOKEN.fullmatch(part) for part in parts):
        raise UsageError(
            f"{option} {name!r} is no ROS name: letters, digits and _ between slashes, "
            "each part beginning with a letter, are needed"
        )
    return "/" + "/".join(parts)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`SOURCE=VALUE` options as a mapping.

    Raises:
        UsageError: without `=`, or a source named twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        source, separator, value = text.partition("=")
        if not separator or not source or not value:
            raise UsageError(f"{option} {text}: SOURCE=VALUE is needed")
        if source in found:
            raise UsageError(f"{option} {text}: source {source!r} was given {found[source]!r} already")
        found[source] = value
    return found
