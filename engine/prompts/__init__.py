"""The one-shot mode: a robot says *this one*, and the object keeps its identity until it is let go.

The way in is `stage.Prompts`: `track` and `untrack`, `step` before the selection of a frame, `pinned` after it.
Nothing here knows networks, files or sockets. Section 3.3 and Eq. 17 of the paper on mask-embedding granularity.
"""
