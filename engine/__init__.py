"""What is seen: a frame becomes a scene.

Pure and single-threaded; needs numpy, numba, OpenCV and onnxruntime. No torch, no sockets, no
`streaming` (only the command line, `engine/run.py`, joins the two). Start reading at `Pipeline.step`.
"""
