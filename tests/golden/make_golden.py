"""Write the golden messages of the wire protocol: `python -m tests.golden.make_golden`.

Each message is a pair of files. NAME.msg holds its parts, each as a little-endian uint32 length and the
bytes. NAME.json says what a reader must find in it, or which complaint it must make. A test compares both
with the code: run this script only for a deliberate change of the protocol. A reader that does not know a new
key or part ignores it; any other change raises the version. Messages as they were before the latest addition
are kept in earlier/ and stay readable.
"""

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.scene import CommitInfo, Look, Object, Scene
from streaming.wire import ModelInfo, encode_eos, encode_heartbeat, encode_scene

FOLDER = Path(__file__).resolve().parent

SESSION = "0123456789abcdef0123456789abcdef"
T_CAPTURE_NS = 1_700_000_000_123_456_789
T_PUBLISH_NS = T_CAPTURE_NS + 25_000_000

LABELS = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 2, 2, 0, 0],
        [0, 0, 0, 2, 2, 2, 65535, 65535],
        [0, 0, 0, 0, 0, 0, 65535, 65535],
    ],
    np.uint16,
)
OBJECTS = (
    Object(id=3, label=1, score=0.875, box=(1, 1, 4, 3), area=6, age=0, novelty=0.5, foreground=0.25, uncertainty=0.5),
    Object(id=70000, label=2, score=0.25, box=(3, 2, 6, 4), area=5, age=12, novelty=1.0, foreground=0.75),
    Object(id=2**40, label=65535, score=1.0, box=(6, 3, 8, 5), area=4, age=900, novelty=0.0, foreground=1.0),
)
LOOKS = (Look(70000, (3, 2, 6, 4), "novel", 1.0), Look(None, (0, 0, 1, 2), "unexplained", 0.25))


@dataclass(frozen=True)
class Golden:
    """One message and what a reader must make of it."""

    parts: list[bytes]
    expected: dict[str, Any]


def golden_messages() -> dict[str, Golden]:
    """All golden messages by name, encoded by the code as it is now."""
    final = _scene("final", commit=CommitInfo(exact=False, lag=5, loss_bound=0.125, margin=0.5), pts_ns=1_234_000_000)
    empty = _scene("final", labels=np.zeros((3, 4), np.uint16), objects=(), commit=CommitInfo(True, 0, 0.0))
    states = {"session": SESSION, "t_publish_ns": T_PUBLISH_NS}
    rle = _encode(final, "rle+zlib", 41)
    return {
        "final_rle_zlib": Golden(rle, _expect_scene(final, "rle+zlib", 41)),
        "provisional_raw": Golden(
            _encode(_scene("provisional"), "raw", 0), _expect_scene(_scene("provisional"), "raw", 0)
        ),
        "final_png": Golden(_encode(final, "png", 42), _expect_scene(final, "png", 42)),
        "final_empty": Golden(_encode(empty, "rle+zlib", 43), _expect_scene(empty, "rle+zlib", 43)),
        "unknown_key_and_part": Golden(_with_unknown(rle), _expect_scene(final, "rle+zlib", 41)),
        "newer_version": Golden(_with_header(rle, v=2), {"error": "protocol version 2"}),
        "heartbeat": Golden(
            encode_heartbeat("Kamera ö", "reconnecting", seq=7, **states),
            _expect_state("heartbeat", "Kamera ö", "reconnecting", 7),
        ),
        "eos": Golden(encode_eos("cam", seq=8, **states), _expect_state("eos", "cam", "ended", 8)),
    }


def pack(parts: list[bytes]) -> bytes:
    """Message parts as the bytes of a .msg file."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def unpack(data: bytes) -> list[bytes]:
    """The parts in the bytes of a .msg file."""
    parts, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return parts


def _scene(kind: Any, **changes: Any) -> Scene:
    fields = {"labels": LABELS, "objects": OBJECTS, "look": LOOKS, "source": "cam", "t_capture_ns": T_CAPTURE_NS}
    return Scene(frame_index=57, kind=kind, **(fields | changes))


def _encode(scene: Scene, encoding: str, seq: int) -> list[bytes]:
    return encode_scene(
        scene,
        session=SESSION,
        seq=seq,
        model=ModelInfo("tiny", "c0ffee", 3),
        timing_ms={"perceive": 4.5, "select": 1.25},
        dropped={"engine_late": 2},
        encoding=encoding,
        t_publish_ns=T_PUBLISH_NS,
    )


def _with_header(parts: list[bytes], /, **changes: Any) -> list[bytes]:
    return [parts[0], json.dumps(json.loads(parts[1]) | changes).encode(), *parts[2:]]


def _with_unknown(parts: list[bytes]) -> list[bytes]:
    """The same scene from a later sender that says more, before the labels and after them."""
    header = json.loads(parts[1])
    depth = {"name": "depth", "encoding": "lerc", "dtype": "<f4", "shape": [5, 8], "unit": "m"}
    changed = _with_header(parts, parts=[depth, *header["parts"]], weather={"rain": None})
    return [changed[0], changed[1], b"\xff\x00depth", changed[2], b"trailing"]


def _expect_scene(scene: Scene, encoding: str, seq: int) -> dict[str, Any]:
    return {
        "topic": f"masks/cam/{scene.kind}/",
        "kind": scene.kind,
        "source": "cam",
        "session": SESSION,
        "seq": seq,
        "t_publish_ns": T_PUBLISH_NS,
        "state": None,
        "frame": 57,
        "t_capture_ns": T_CAPTURE_NS,
        "pts_ns": scene.pts_ns,
        "size": list(scene.labels.shape),
        "frame_size": list(scene.labels.shape),
        "objects": [asdict(item) | {"box": list(item.box)} for item in scene.objects],
        "commit": None if scene.commit is None else asdict(scene.commit),
        "look": [asdict(item) | {"box": list(item.box)} for item in scene.look],
        "model": {"name": "tiny", "hash": "c0ffee", "generation": 3},
        "timing_ms": {"perceive": 4.5, "select": 1.25},
        "dropped": {"engine_late": 2},
        "encoding": encoding,
        "labels": scene.labels.tolist(),
    }


def _expect_state(kind: str, source: str, state: str, seq: int) -> dict[str, Any]:
    return {
        "topic": f"state/{source}/",
        "kind": kind,
        "source": source,
        "session": SESSION,
        "seq": seq,
        "t_publish_ns": T_PUBLISH_NS,
        "state": state,
    }


def main() -> None:
    """Write all golden files beside this script."""
    for name, golden in golden_messages().items():
        (FOLDER / f"{name}.msg").write_bytes(pack(golden.parts))
        text = json.dumps(golden.expected, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
