"""The writer of the selection store: what the engine found and was sure of, kept for learning.

`docs/store.md` is the contract; the reader is `learning.store`, and neither imports the other.
"""
