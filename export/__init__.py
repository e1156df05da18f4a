"""Checkpoint to ONNX and INT8, with the proof that the masks are still the same.

Reads `learning.networks` and torch; knows nothing of streams or of the engine's state.
"""
