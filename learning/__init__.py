"""Offline learning: synthetic video, networks, losses, pre-training and evaluation.

Nothing here runs on a robot, and nothing here may import `streaming`.
"""
