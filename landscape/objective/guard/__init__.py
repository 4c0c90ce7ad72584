"""Measuring leaves no mark: which models are admitted, and all that a pass may move, put back."""
