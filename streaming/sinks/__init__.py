"""Where scenes go beside the network: mask files, overlay video, scores."""
