"""A ZeroMQ subscriber that speaks ROS, in a process of its own: `python -m ros_bridge`.

`streaming.ros` says what becomes what and turns it into bytes, `backends` carry the bytes, `bridge` is the loop.
Nothing here may know torch, learning or export; the engine is known by its wire messages only.
"""
