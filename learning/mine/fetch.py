"""A recording as a local file or folder, for as long as it is worked on."""

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec

from engine.errors import SourceError
from learning.mine.recordings import Recording


@contextlib.contextmanager
def local_copy(recording: Recording) -> Iterator[Path]:
    """Path of the recording on this machine; what had to be fetched is deleted afterwards.

    Raises:
        SourceError: it cannot be fetched, or is gone.
    """
    if recording.local:
        if not Path(recording.uri).exists():
            raise SourceError(f"'{recording.uri}' is gone, or not on this machine; check the path")
        yield Path(recording.uri)
        return
    with tempfile.TemporaryDirectory(prefix="unseen-mine-") as folder:
        target = Path(folder) / posixpath.basename(recording.uri.rstrip("/"))
        try:
            fs, path = fsspec.core.url_to_fs(recording.uri)
            if fs.isfile(path):
                fs.get_file(path, str(target))
            else:
                fs.get(path.rstrip("/") + "/", f"{target}/", recursive=True)
        except Exception as error:  # each file system has errors of its own
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
            raise SourceError(f"'{recording.uri}' cannot be fetched: {reason}; repeat the command") from None
        yield target
