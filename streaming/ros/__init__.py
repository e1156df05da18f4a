"""ROS messages without ROS: `messages` says what becomes what, `cdr` turns it into bytes, `pixels` reads images.

Shared by the recorder, the replay and the process that speaks ROS. Needs rosbags; import it only where it is used.
"""
