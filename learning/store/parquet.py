"""A selection store as Parquet, one row per frame: what Ray Data and its like read in parallel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import StoreError, UsageError
from learning.store.export import Choice
from learning.store.reader import SelectionStore

_FRAME_FIELDS = {
    "id": "int64",
    "session": "string",
    "source": "string",
    "number": "int64",
    "capture_ns": "int64",
    "pts_ns": "int64",
    "previous_capture_ns": "int64",
    "model_name": "string",
    "model_hash": "string",
    "generation": "int64",
    "exact": "bool_",
    "lag": "int64",
    "loss_bound": "float64",
    "margin": "float64",
    "usefulness": "float64",
    "flow_px": "float64",
    "jpeg": "binary",
    "previous_jpeg": "binary",
    "doubt_png": "binary",
}
SELECTION_FIELDS = {
    "object_id": "int64",
    "rle": "string",
    "area": "int64",
    "score": "float64",
    "foreground": "float64",
    "age": "int64",
    "novelty": "float64",
    "uncertainty": "float64",
    "motion_px": "float64",
}


def export_parquet(store: SelectionStore, path: Path, choice: Choice) -> dict[str, int]:
    """Write one row per frame, its selections nested, in groups of 64 rows; returns how much was written.

    Raises:
        UsageError: pyarrow is not installed.
        StoreError: the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("export parquet needs pyarrow: pip install 'unseen-engine[parquet]'") from None
    frames = selections = 0
    schema = parquet_schema(pyarrow)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for rows in _groups(store, choice, 64):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                frames += len(rows)
                selections += sum(len(row["selections"]) for row in rows)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from None
    return {"frames": frames, "selections": selections}


def parquet_schema(pyarrow: Any) -> Any:
    """Columns of a file with one row per frame, its selections nested."""

    def fields(kinds: dict[str, str]) -> list[Any]:
        return [pyarrow.field(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()]

    size = [pyarrow.field("height", pyarrow.int64()), pyarrow.field("width", pyarrow.int64())]
    box = pyarrow.field("box", pyarrow.list_(pyarrow.int64()))
    embedding = pyarrow.field("embedding", pyarrow.list_(pyarrow.float32()))
    selection = pyarrow.struct([*fields(SELECTION_FIELDS), box, embedding])
    return pyarrow.schema([*fields(_FRAME_FIELDS), *size, pyarrow.field("selections", pyarrow.list_(selection))])


def _groups(store: SelectionStore, choice: Choice, count: int) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for frame in store.frames():
        row = {name: getattr(frame, name) for name in _FRAME_FIELDS}
        row |= {"height": frame.size[0], "width": frame.size[1]}
        row["selections"] = [
            {name: getattr(item, name) for name in SELECTION_FIELDS}
            | {"box": list(item.box), "embedding": None if item.embedding is None else item.embedding.tolist()}
            for item in choice.of(frame)
        ]
        rows.append(row)
        if len(rows) == count:
            yield rows
            rows = []
    if rows:
        yield rows
