"""Candidate masks: the network's own, and blobs of its foreground map; specks and duplicates leave."""
