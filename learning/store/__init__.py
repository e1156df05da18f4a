"""The selection store, read: what an engine recorded with `--record`, without torch.

`docs/store.md` is the contract; the writer is `streaming.store`, and neither imports the other.
"""

from learning.store.reader import SelectionStore
from learning.store.records import FrameRecord, SelectionRecord

__all__ = ["FrameRecord", "SelectionRecord", "SelectionStore"]
