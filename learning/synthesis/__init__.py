"""Synthetic training samples: pairs of frames with exact masks, made from photographs, cut-outs and shapes.

The motion features of a sample come from the engine's own estimator; nothing here may imitate it.
"""
