"""A selection store as COCO or YouTube-VIS annotations, which the labelling tools open."""

import json
from pathlib import Path
from typing import Any

from engine.errors import StoreError
from learning.store.reader import SelectionStore
from learning.store.records import FrameRecord, SelectionRecord

CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}
"""The engine knows that something is an object, not what it is."""


class Choice:
    """Which selections are exported.

    Args:
        min_score: the detector's own score at least.
        min_foreground: saliency over time at least.
    """

    def __init__(self, min_score: float = 0.0, min_foreground: float = 0.0) -> None:
        self._min_score = min_score
        self._min_foreground = min_foreground

    def of(self, frame: FrameRecord) -> list[SelectionRecord]:
        """The selections of a frame that are good enough."""
        return [
            item
            for item in frame.selections
            if item.score >= self._min_score and item.foreground >= self._min_foreground
        ]


def export_coco(store: SelectionStore, folder: Path, choice: Choice) -> dict[str, int]:
    """Write FOLDER/annotations.json and FOLDER/images; returns how much was written.

    An annotation names its object in `track_id`, unique in the file, and keeps score, novelty and uncertainty
    under `attributes`.

    Raises:
        StoreError: the folder cannot be written, or holds something.
    """
    images_folder = _new_folder(folder)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    tracks: dict[tuple[str, str, int], int] = {}
    for frame in store.frames():
        name = _write_image(images_folder, frame)
        height, width = frame.size
        images.append(
            {
                "id": frame.id,
                "file_name": name,
                "height": height,
                "width": width,
                "frame_number": frame.number,
                "source": frame.source,
                "session": frame.session,
            }
        )
        for item in choice.of(frame):
            x0, y0, x1, y1 = item.box
            track = tracks.setdefault((frame.session, frame.source, item.object_id), len(tracks) + 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame.id,
                    "category_id": CATEGORY["id"],
                    "segmentation": {"size": [height, width], "counts": item.rle},
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": item.area,
                    "iscrowd": 0,
                    "track_id": track,
                    "attributes": {
                        "score": item.score,
                        "foreground": item.foreground,
                        "novelty": item.novelty,
                        "uncertainty": item.uncertainty,
                    },
                }
            )
    content = {
        "info": {"description": "selections of an unseen engine, not checked by anybody"},
        "licenses": [],
        "categories": [CATEGORY],
        "images": images,
        "annotations": annotations,
    }
    _write_json(folder, content)
    return {"images": len(images), "annotations": len(annotations), "tracks": len(tracks)}


def export_ytvis(store: SelectionStore, folder: Path, choice: Choice) -> dict[str, int]:
    """Write FOLDER/annotations.json and FOLDER/images in the form of YouTube-VIS; returns how much was written.

    A video is what one source of one session recorded at one picture size; its frames are those stored, not
    every frame there was. An annotation is one object with one mask, box and area per frame, null where absent.

    Raises:
        StoreError: the folder cannot be written, or holds something.
    """
    images_folder = _new_folder(folder)
    videos: dict[tuple[str, str, tuple[int, int]], dict[str, Any]] = {}
    seen: dict[tuple[int, int], dict[int, SelectionRecord]] = {}
    for frame in store.frames():
        height, width = frame.size
        video = videos.setdefault(
            (frame.session, frame.source, frame.size),
            {"id": len(videos) + 1, "height": height, "width": width, "file_names": [], "frame_numbers": []},
        )
        position = len(video["file_names"])
        video["file_names"].append(_write_image(images_folder, frame))
        video["frame_numbers"].append(frame.number)
        for item in choice.of(frame):
            seen.setdefault((video["id"], item.object_id), {})[position] = item
    by_id = {video["id"]: video for video in videos.values()}
    annotations: list[dict[str, Any]] = []
    for (video_id, object_id), masks in seen.items():
        video = by_id[video_id]
        items = [masks.get(position) for position in range(len(video["file_names"]))]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "video_id": video_id,
                "category_id": CATEGORY["id"],
                "iscrowd": 0,
                "height": video["height"],
                "width": video["width"],
                "length": len(items),
                "object_id": object_id,
                "segmentations": [
                    item and {"size": [video["height"], video["width"]], "counts": item.rle} for item in items
                ],
                "bboxes": [
                    item and [item.box[0], item.box[1], item.box[2] - item.box[0], item.box[3] - item.box[1]]
                    for item in items
                ],
                "areas": [item and item.area for item in items],
            }
        )
    for video in by_id.values():
        video["length"] = len(video["file_names"])
    content = {
        "info": {"description": "selections of an unseen engine, not checked by anybody"},
        "licenses": [],
        "categories": [CATEGORY],
        "videos": list(by_id.values()),
        "annotations": annotations,
    }
    _write_json(folder, content)
    return {"videos": len(by_id), "annotations": len(annotations)}


def _new_folder(folder: Path) -> Path:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise StoreError(f"{folder}: is not empty; name a new folder")
        images = folder / "images"
        images.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from None
    return images


def _write_image(folder: Path, frame: FrameRecord) -> str:
    name = f"{frame.id:08d}.jpg"
    try:
        (folder / name).write_bytes(frame.jpeg)
    except OSError as error:
        raise StoreError(f"{folder / name}: {error.strerror or error}") from None
    return name


def _write_json(folder: Path, content: dict[str, Any]) -> None:
    try:
        (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from None
