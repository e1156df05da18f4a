"""Networks that turn an image and its motion features into proposals.

Definitions only: no training, no data, no file formats.
"""
