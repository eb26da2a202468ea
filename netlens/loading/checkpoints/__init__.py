"""Checkpoints: what is in a file, without running anything in it; then its weights, and how they fit a model."""
