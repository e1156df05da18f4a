"""The tables of the selection store, as `docs/store.md` describes them."""

APPLICATION_ID = 0x556E5365
"""`PRAGMA application_id` of a selection store, "UnSe"."""

VERSION = 1
"""`PRAGMA user_version`; raised by any change that a reader of the version before cannot ignore."""

TABLES = """
CREATE TABLE session (
    id          INTEGER PRIMARY KEY,
    uuid        TEXT NOT NULL UNIQUE,
    started_ns  INTEGER NOT NULL,
    engine      TEXT NOT NULL
);
CREATE TABLE model (
    id          INTEGER PRIMARY KEY,
    hash        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL
);
CREATE TABLE frame (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id  INTEGER NOT NULL REFERENCES session (id),
    model_id    INTEGER NOT NULL REFERENCES model (id),
    generation  INTEGER NOT NULL,
    source      TEXT NOT NULL,
    number      INTEGER NOT NULL,
    capture_ns  INTEGER NOT NULL,
    pts_ns      INTEGER,
    width       INTEGER NOT NULL,
    height      INTEGER NOT NULL,
    jpeg        BLOB NOT NULL,
    previous_jpeg       BLOB,
    previous_capture_ns INTEGER,
    doubt       BLOB NOT NULL,
    flow_px     REAL,
    exact       INTEGER NOT NULL,
    lag         INTEGER NOT NULL,
    loss_bound  REAL NOT NULL,
    margin      REAL,
    usefulness  REAL NOT NULL,
    bytes       INTEGER NOT NULL,
    UNIQUE (session_id, source, number)
);
CREATE INDEX frame_by_usefulness ON frame (usefulness, id);
CREATE TABLE selection (
    id          INTEGER PRIMARY KEY,
    frame_id    INTEGER NOT NULL REFERENCES frame (id) ON DELETE CASCADE,
    object_id   INTEGER NOT NULL,
    rle         TEXT NOT NULL,
    x           INTEGER NOT NULL,
    y           INTEGER NOT NULL,
    width       INTEGER NOT NULL,
    height      INTEGER NOT NULL,
    area        INTEGER NOT NULL,
    score       REAL NOT NULL,
    foreground  REAL NOT NULL,
    age         INTEGER NOT NULL,
    novelty     REAL NOT NULL,
    uncertainty REAL NOT NULL,
    motion_px   REAL,
    embedding   BLOB
);
CREATE INDEX selection_by_frame ON selection (frame_id);
"""
