"""Many robots, one model: their stores become one training set, and the model goes back to all of them.

`python -m learning.fleet` is the command; `docs/scale.md` the manual. Needs no torch, so that robots can pull with it.
"""
