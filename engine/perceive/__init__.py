"""Frames to percepts: optical flow, camera motion, the network runner.

Depends on frames only, never on earlier selections, so it may run ahead of the rest.
"""
