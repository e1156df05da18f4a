"""One frame and its selections, ready to be written."""

from dataclasses import dataclass

_ROW_BYTES = 200
"""What a row costs besides its blobs: columns, keys and index entries, roughly."""


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """One selected mask; fields are the columns of the table `selection`."""

    object_id: int
    rle: str
    x: int
    y: int
    width: int
    height: int
    area: int
    score: float
    foreground: float
    age: int
    novelty: float
    uncertainty: float
    motion_px: float | None = None
    embedding: bytes | None = None

    @property
    def bytes(self) -> int:
        """What the row takes in the file, roughly."""
        return len(self.rle) + len(self.embedding or b"") + _ROW_BYTES


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame; fields are the columns of the table `frame`, the model by name and hash."""

    model_name: str
    model_hash: str
    generation: int
    source: str
    number: int
    capture_ns: int
    pts_ns: int | None
    width: int
    height: int
    jpeg: bytes
    previous_jpeg: bytes | None
    previous_capture_ns: int | None
    doubt: bytes
    flow_px: float | None
    exact: bool
    lag: int
    loss_bound: float
    margin: float | None
    usefulness: float

    @property
    def bytes(self) -> int:
        """What the row takes in the file, roughly."""
        return len(self.jpeg) + len(self.previous_jpeg or b"") + len(self.doubt) + _ROW_BYTES
