"""The protocol of the paper *Selection* at our scale: masks mined from unlabelled video teach the detector new objects.

`python -m benchmarks.unseen` runs it; objects are rendered, backgrounds are photographs.
"""
