"""AMD: objects from unlabelled video, by splitting what is seen into segments that move as one.

Losses, clips, training, adaptation and read-out; the network itself is `learning.networks.amd`.
"""
