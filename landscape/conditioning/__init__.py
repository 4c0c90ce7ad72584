"""Conditioning of the Gauss-Newton matrix (arXiv 2411.02139): closed forms, with upper bounds, in float64."""

from landscape.conditioning.convolution import convolution_matrix
from landscape.conditioning.gauss_newton import gauss_newton
from landscape.conditioning.leaky_relu import leaky_relu_network
from landscape.conditioning.linear import linear_network, linear_network_of
from landscape.conditioning.results import Conditioning, LayerFactors, from_eigenvalues

linear_model = linear_network_of  # its name before; `solvers.linear_model` is another thing

__all__ = [
    "Conditioning",
    "LayerFactors",
    "convolution_matrix",
    "from_eigenvalues",
    "gauss_newton",
    "leaky_relu_network",
    "linear_model",
    "linear_network",
    "linear_network_of",
]
