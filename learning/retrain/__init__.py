"""Retraining on what the engine selected: out comes a model that is better and forgot nothing, or a reason why not.

`python -m learning.retrain` is the command; `docs/learning.md` the manual. Never imports `streaming`.
"""
