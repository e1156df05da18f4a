"""Exports are what the tools that read them expect."""

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import StoreError
from learning.store import SelectionStore
from learning.store.export import Choice, export_coco, export_ytvis
from learning.store.parquet import export_parquet

coco_masks = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def test_coco_is_read_by_its_own_library_with_the_same_masks(recorded: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    with SelectionStore(recorded) as store:
        counts = export_coco(store, tmp_path / "coco", Choice())
        frames = {frame.id: frame for frame in store.frames()}
    assert counts == {"images": 12, "annotations": 12, "tracks": 2}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "coco" / "annotations.json"))
    assert sorted(coco.getImgIds()) == sorted(frames)
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["object"]
    for annotation in coco.loadAnns(coco.getAnnIds()):
        frame = frames[annotation["image_id"]]
        (item,) = frame.selections
        mask = coco.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(mask, item.mask())
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == coco_masks.toBbox(annotation["segmentation"]).tolist()
        assert annotation["attributes"]["novelty"] == 0.5
    for image in coco.loadImgs(coco.getImgIds()):
        picture = cv2.imread(str(tmp_path / "coco" / "images" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        np.testing.assert_array_equal(picture, frames[image["id"]].image())


def test_coco_scores_itself_perfect(recorded: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with SelectionStore(recorded) as store:
        export_coco(store, tmp_path / "coco", Choice())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco" / "annotations.json"))
        found = truth.loadRes([a | {"score": 1.0} for a in truth.dataset["annotations"]])
        judge = COCOeval(truth, found, "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0)


def test_youtube_vis_has_one_mask_per_object_and_frame(recorded: Path, tmp_path: Path) -> None:
    with SelectionStore(recorded) as store:
        assert export_ytvis(store, tmp_path / "vis", Choice()) == {"videos": 2, "annotations": 2}
        frames = list(store.frames())
    content = json.loads((tmp_path / "vis" / "annotations.json").read_text())
    for video, source in zip(content["videos"], ("left", "right"), strict=True):
        of_video = [frame for frame in frames if frame.source == source]
        assert video["frame_numbers"] == [frame.number for frame in of_video]
        assert video["length"] == len(video["file_names"]) == 6
        assert all((tmp_path / "vis" / "images" / name).exists() for name in video["file_names"])
        (annotation,) = [a for a in content["annotations"] if a["video_id"] == video["id"]]
        for code, box, area, frame in zip(
            annotation["segmentations"], annotation["bboxes"], annotation["areas"], of_video, strict=True
        ):
            mask = coco_masks.decode({"size": code["size"], "counts": code["counts"].encode()}).astype(bool)
            np.testing.assert_array_equal(mask, frame.selections[0].mask())
            assert area == mask.sum()
            assert box == coco_masks.toBbox({**code, "counts": code["counts"].encode()}).tolist()


def test_an_object_that_is_not_in_every_frame_is_null_where_it_is_not(recorded: Path, tmp_path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(recorded)) as connection, connection:
        connection.execute("DELETE FROM selection WHERE frame_id = 3")
        connection.execute("UPDATE selection SET score = 0.1 WHERE frame_id = 5")
    with SelectionStore(recorded) as store:
        export_ytvis(store, tmp_path / "vis", Choice(min_score=0.2))
    content = json.loads((tmp_path / "vis" / "annotations.json").read_text())
    left = content["annotations"][0]
    for field in ("segmentations", "bboxes", "areas"):
        assert [value is None for value in left[field]] == [False, True, True, False, False, False]


def test_parquet_holds_every_field(recorded: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with SelectionStore(recorded) as store:
        assert export_parquet(store, tmp_path / "out" / "a.parquet", Choice()) == {"frames": 12, "selections": 12}
        frames = list(store.frames())
    rows = parquet.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    for row, frame in zip(rows, frames, strict=True):
        assert (row["id"], row["source"], row["exact"], row["jpeg"]) == (frame.id, frame.source, True, frame.jpeg)
        assert (row["height"], row["width"]) == frame.size
        (item,) = row["selections"]
        assert item["rle"] == frame.selections[0].rle
        assert tuple(item["box"]) == frame.selections[0].box
        assert item["embedding"] == frame.selections[0].embedding.tolist()


def test_selections_can_be_left_out_by_their_worth(recorded: Path, tmp_path: Path) -> None:
    with SelectionStore(recorded) as store:
        assert export_coco(store, tmp_path / "a", Choice(min_score=0.41))["annotations"] == 0
        assert export_coco(store, tmp_path / "b", Choice(min_foreground=0.8))["annotations"] == 12


def test_a_folder_that_holds_something_is_left_alone(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with SelectionStore(recorded) as store, pytest.raises(StoreError, match="not empty"):
        export_coco(store, tmp_path / "mine", Choice())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
