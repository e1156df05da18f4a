"""A ZeroMQ subscriber that speaks ROS; its own process, knows only `streaming.subscriber`.

Nothing lives here yet: the mapping to ROS topics is described with the wire protocol and comes next.
"""
