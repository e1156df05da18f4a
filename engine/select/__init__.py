"""Which candidate masks are objects: losses, the K best combinations per frame, the online shortest path.

The way in is `selection.Selection.step`. Nothing here knows about networks, images on disk or sockets;
`reference.py` holds slow definitions for tests and benchmarks and is imported by nothing else.
"""
