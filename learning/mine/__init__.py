"""Mining recordings: the engine with all the time there is over thousands of them, what it selects into Parquet.

`python -m learning.mine` is the command; `docs/scale.md` the manual. Needs no torch; Ray only for several workers.
"""
