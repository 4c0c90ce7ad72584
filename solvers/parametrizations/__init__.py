"""Weights as functions of other parameters, which solvers then move: registered by `torch.nn.utils.parametrize`."""

from solvers.parametrizations.sigma import SigmaReparam, remove_sigma_reparam, sigma_reparam

__all__ = ["SigmaReparam", "remove_sigma_reparam", "sigma_reparam"]
