"""Checkpoints: saved parameters found, ordered, loaded into their model and probed."""
