"""A subscriber written from docs/wire.md alone reads what the engine saved. Nothing of ours decodes here."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import zmq

FRAMES = 40


def decode_labels(part: dict, buffer: bytes) -> np.ndarray:
    """The `rle+zlib` encoding, as the page describes it."""
    assert part["name"] == "labels"
    assert part["encoding"] == "rle+zlib"
    raw = zlib.decompress(buffer)
    runs = len(raw) // 6
    values = struct.unpack(f"<{runs}H", raw[: 2 * runs])
    lengths = struct.unpack(f"<{runs}I", raw[2 * runs :])
    return np.repeat(np.array(values, np.uint16), lengths).reshape(part["shape"])


def test_published_masks_equal_the_saved_ones(tmp_path: Path, motion_model: Path) -> None:
    out, endpoint = tmp_path / "out", f"ipc://{tmp_path}/masks"
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, 300_000)
    socket.setsockopt(zmq.SUBSCRIBE, b"masks/table/final/")
    socket.setsockopt(zmq.SUBSCRIBE, b"state/table/")
    socket.connect(endpoint)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "engine.run", "--source", f"table=demo://?live=1&frames={FRAMES}&fps=10"),
            *("--every-frame", "--publish", endpoint, "--save-masks", str(out), "--model", str(motion_model)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    received: dict[int, tuple[dict, np.ndarray]] = {}
    seen: set[tuple[str, int]] = set()
    try:
        while True:
            topic, head, *buffers = socket.recv_multipart()
            header = json.loads(head)
            assert header["v"] == 1
            if header["kind"] == "eos":
                break
            if topic != b"masks/table/final/" or (header["session"], header["seq"]) in seen:
                continue
            seen.add((header["session"], header["seq"]))
            received[header["frame"]] = (header, decode_labels(header["parts"][0], buffers[0]))
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        context.destroy(linger=0)
    assert process.returncode == 0, errors
    saved = {int(path.stem): path for path in (out / "masks").glob("*.png")}
    lines = {json.loads(line)["frame"]: json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()}
    assert set(received) == set(saved) == set(lines)
    assert len(received) > FRAMES // 2
    for frame, (header, labels) in received.items():
        ids = np.zeros(0x10000, np.uint16)
        for item in header["objects"]:
            ids[item["label"]] = item["id"]
        assert np.array_equal(ids[labels], cv2.imread(str(saved[frame]), cv2.IMREAD_UNCHANGED))
        assert header["t_capture_ns"] == lines[frame]["t_capture_ns"] < header["t_publish_ns"]
        assert [item["id"] for item in header["objects"]] == [item["id"] for item in lines[frame]["objects"]]
        assert header["commit"] == lines[frame]["commit"]
