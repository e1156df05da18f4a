"""Other people's networks as ONNX files the engine's adapters recognise; `python -m export.third_party`.

torchvision, which Mask R-CNN comes from, is imported when asked for: it is an optional extra.
"""
