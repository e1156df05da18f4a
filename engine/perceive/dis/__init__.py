"""Dense inverse search (DIS) optical flow: what OpenCV computes, in less time.

Nothing in here knows of models or of camera motion.
"""
