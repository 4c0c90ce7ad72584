"""Movers: `torch.optim.Optimizer` subclasses of first and second order (see the CHANGELOG for what is here)."""
