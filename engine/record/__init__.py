"""Which final scenes are kept for learning, and the rows they become: frames, masks and certificates; no files.

`docs/store.md` is the contract. `streaming.store` writes the rows into SQLite, `learning.mine` into Parquet.
"""
