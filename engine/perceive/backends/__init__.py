"""What runs a model file: one small interface, `runner.Runner`, and the libraries behind it.

`choose.open_runner` is the way in. Nothing here knows the model contract; nothing here imports torch: runners
that need it come from installed packages, by the entry-point group `unseen.backends`.
"""
