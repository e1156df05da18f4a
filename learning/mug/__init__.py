"""Segmentation learned from unlabelled clips at four granularities: frame, short, long and whole video (MuG).

The network is learning.networks.mug; here are what it learns from (saliency, bursts), its losses, its training and
its read-outs. Nothing here reads a label.
"""
