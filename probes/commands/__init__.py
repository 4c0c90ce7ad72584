"""Commands that measure saved checkpoints: what is typed, turned into calls."""
