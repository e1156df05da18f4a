"""The writer of the selection store: what the engine found and was sure of, in one SQLite file.

`docs/store.md` is the contract; `engine.record` decides what is kept; the reader is `learning.store`, and neither
imports the other.
"""
