"""Which parts of a frame look alike, which of them move as things do, and what was learned of each object.

The way in is `stage.Seeds`: `step` before the selection of a frame, `learn` after its commit. Nothing here
knows networks, images on disk or sockets. The equations are those of the instance-embedding-transfer paper (Seeds).
"""
