"""The model registry: a folder of versions, one of which is current. Files and hashes; no torch, no sockets.

`python -m engine.registry` is its command line; `streaming.models` watches one and swaps models while running.
"""

from engine.registry.registry import Registry
from engine.registry.version import Version

__all__ = ["Registry", "Version"]
