"""A final scene and its image as the rows that are stored."""

import cv2
import numpy as np

from engine.compose import boxes_and_areas
from engine.config import RecordConfig
from engine.evidence import Evidence
from engine.frame import Frame
from engine.record.rows import FrameRow, SelectionRow
from engine.rle import encode_rle
from engine.scene import CommitInfo, Scene

_PREVIOUS_PX = 448
"""Longer side of the frame before, kept for its motion only: the network's input is no larger."""


def rows_of(
    frame: Frame,
    before: Frame | None,
    scene: Scene,
    evidence: Evidence,
    commit: CommitInfo,
    usefulness: float,
    config: RecordConfig,
) -> tuple[FrameRow, list[SelectionRow]]:
    """What is stored of `frame`; an object that vanishes when the picture is scaled down is left out.

    Args:
        before: the frame processed before it, or None; left out at a cut.
        evidence, commit: of `scene`.
    """
    image = _at_most(frame.image, config.image_px)
    height, width = image.shape[:2]
    labels = scene.labels
    if labels.shape != (height, width):
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    same_shot = before is not None and evidence.flow is not None
    row = FrameRow(
        model_name=evidence.model_name,
        model_hash=evidence.model_hash,
        generation=evidence.generation,
        source=scene.source,
        number=scene.frame_index,
        capture_ns=scene.t_capture_ns,
        pts_ns=scene.pts_ns,
        width=width,
        height=height,
        jpeg=_jpeg(image, config.jpeg_quality),
        previous_jpeg=_jpeg(_at_most(before.image, _PREVIOUS_PX), config.jpeg_quality)
        if same_shot and before
        else None,
        previous_capture_ns=before.t_capture_ns if same_shot and before else None,
        doubt=cv2.imencode(".png", evidence.doubt())[1].tobytes(),
        flow_px=evidence.flow_px((height, width)),
        exact=commit.exact,
        lag=commit.lag,
        loss_bound=commit.loss_bound,
        margin=commit.margin,
        usefulness=usefulness,
    )
    return row, _selections(labels, scene, evidence)


def _selections(labels: np.ndarray, scene: Scene, evidence: Evidence) -> list[SelectionRow]:
    found = boxes_and_areas(labels, [item.label for item in scene.objects])
    motion_px = evidence.motion_px((labels.shape[0], labels.shape[1]))
    rows = []
    for item in scene.objects:
        if item.label not in found:
            continue
        (x0, y0, x1, y1), area = found[item.label]
        embedding = evidence.embeddings.get(item.id)
        rows.append(
            SelectionRow(
                object_id=item.id,
                rle=encode_rle(labels == item.label, (x0, y0, x1, y1)),
                x=x0,
                y=y0,
                width=x1 - x0,
                height=y1 - y0,
                area=area,
                score=item.score,
                foreground=item.foreground,
                age=item.age,
                novelty=item.novelty,
                uncertainty=item.uncertainty,
                motion_px=motion_px.get(item.id),
                embedding=None if embedding is None else np.asarray(embedding, "<f4").tobytes(),
            )
        )
    return rows


def _at_most(image: np.ndarray, longest_px: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
