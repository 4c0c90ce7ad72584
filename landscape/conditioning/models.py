"""Which objective is a deep linear network, so that the closed forms hold for it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from landscape.conditioning.linear import linear_network
from landscape.conditioning.results import Conditioning, Threshold
from landscape.gauss_newton import output_tensor
from landscape.jacobians import close
from landscape.objective import Objective


def linear_model(objective: Objective, *, skip: float = 0.0, threshold: Threshold = None) -> Conditioning | None:
    """`linear_network` of an objective's model and data; None when the model is something else.

    It is one when the chosen parameters are the weights of Linear layers without biases, each used in the order in
    which the model names them, and when the outputs on all of the data are (W_L + skip I) ... (W_1 + skip I) x.
    The covariance is that of the data, (1/N) sum x x^T, in float64. Costs one forward pass.

    Raises what `linear_network` raises.
    """
    layers = [m for m in objective.module.modules() if isinstance(m, nn.Linear)]
    weights = [m.weight.detach().double() for m in layers]
    chosen = [id(p) for p in objective.leaves()]
    if not layers or chosen != [id(m.weight) for m in layers] or not _chained(weights):
        return None
    d = weights[0].shape[1]
    total, samples = torch.zeros(d, d, dtype=torch.float64, device=weights[0].device), 0
    with objective.measuring(), torch.no_grad():
        for batch in objective.sweep():
            outputs = output_tensor(objective.outputs(batch))
            if not objective.terms(outputs, batch):
                continue
            if not isinstance(batch.inputs, Tensor) or outputs.ndim != 2 or batch.inputs.numel() != len(outputs) * d:
                return None
            x = batch.inputs.reshape(len(outputs), d).double()
            if not close(_applied(weights, skip, x), outputs.double(), outputs.dtype):
                return None
            total += x.T @ x
            samples += len(x)
    if not samples:
        return None
    return linear_network(weights, total / samples, skip=skip, threshold=threshold)


def _chained(weights: list[Tensor]) -> bool:
    return all(a.shape[0] == b.shape[1] for a, b in pairwise(weights))


def _applied(weights: list[Tensor], skip: float, x: Tensor) -> Tensor:
    for W in weights:
        x = x @ (W + skip * torch.eye(*W.shape, dtype=W.dtype, device=W.device)).T
    return x
