"""A simulated cell whose robot grasps what the engine finds, and acts in order to see better.

`planner`, `explorer` and what they import know only the mask subscriber, numpy and OpenCV: they suit a real robot.
"""
