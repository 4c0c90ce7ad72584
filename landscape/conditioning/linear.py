"""Deep linear networks F(x) = W_L ... W_1 x: the condition number of the Gauss-Newton matrix, with upper bounds.

For the squared loss G = (1/n) sum_i J_i^T J_i has the non-zero eigenvalues of the far smaller

    (I_k x S^{1/2}) [ sum_l A_l A_l^T x B_l^T B_l ] (I_k x S^{1/2}),   A_l = W_L ... W_{l+1},  B_l = W_{l-1} ... W_1,

with the Kronecker product x and S = (1/n) X X^T (arXiv 2411.02139, the Gauss-Newton matrix of a linear network).
The symmetric form matters: [ ... ] (I_k x S) has the same eigenvalues but is not symmetric, and a symmetric
eigensolver reads wrong ones from it unless the data are white.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from landscape.conditioning.bounds import quotient, singular_range
from landscape.conditioning.inputs import (
    Threshold,
    absolute_threshold,
    as_float64,
    finite,
    require_memory,
    unit_roundoff,
)
from landscape.conditioning.results import Conditioning, LayerFactors, from_eigenvalues
from landscape.objective.objective import Objective
from landscape.operators.jacobians import close


def linear_network(
    weights: Iterable[Any], covariance: Any = None, *, skip: float = 0.0, threshold: Threshold = None
) -> Conditioning:
    """kappa of the Gauss-Newton matrix of F(x) = (W_L + skip * I) ... (W_1 + skip * I) x, and its upper bounds.

    With s_l, S_l the smallest and largest singular values of the factors A_l and B_l (`Conditioning.layers`):

        bound          kappa(Sigma) * sum_l S(A_l)^2 S(B_l)^2 / sum_l s(A_l)^2 s(B_l)^2, which is a convex combination
                       of kappa(A_l)^2 kappa(B_l)^2; an equality for two layers and white data
        loose_bound    kappa(Sigma) * max_l kappa(A_l)^2 kappa(B_l)^2
        product_bound  the sums of `bound` with products of the layers' own singular values in place of the
                       factors'; for square layers only, inf otherwise

    s(A_l) is 0 where a width is below k, s(B_l) where one is below d: without a layer that has both, bound is inf.
    The cost is one eigenvalue problem of size k * d, whatever the hidden widths, and products of k and of d rows.

    Args:
        weights: [W_1, ..., W_L], each `(out, in)` as in `torch.nn.Linear`, without biases; at least one. Tensors of
            any device and dtype, Parameters or numpy arrays; computed in float64 on the host.
        covariance: `(d, d)`, (1/n) X X^T of the inputs, not centred; default the identity (white data). A
            direction without data makes kappa_data and all bounds inf; kappa leaves it out.
        skip: beta; beta * eye(out, in) is added to every layer, the first and the last included. The paper's
            1 / sqrt(L) and 1 / L are passed as numbers, `skip=len(weights) ** -0.5`.
        threshold: see `from_eigenvalues`; "paper" counts the entries of the weights as parameters.

    Returns:
        `Conditioning` with k * d eigenvalues. For all-zero weights (two layers or more) or data kappa is inf, rank 0.

    Raises:
        TypeError: something is complex or holds no numbers; a skip that is no number.
        ValueError: no weights, weights that do not chain, are not 2-D or not finite; a covariance of another
            shape, not symmetric, not positive semi-definite or not finite; a skip that is not finite.
        MemoryError: a matrix of k * d rows does not fit into half of the memory that is free.
        FloatingPointError: the products of the layers overflow float64.

    Example:
        >>> import torch
        >>> from landscape.conditioning import linear_network
        >>> found = linear_network([torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.eye(2)])
        >>> round(found.kappa, 4), round(found.bound, 4), round(found.loose_bound, 4)
        (2.5, 2.5, 4.0)
    """
    beta = finite(skip, "skip")
    chain = _chain(weights)
    threshold = absolute_threshold(threshold, sum(W.numel() for W in chain))
    if beta:
        chain = [W + beta * torch.eye(*W.shape, dtype=torch.float64) for W in chain]
    d, k = chain[0].shape[1], chain[-1].shape[0]
    root, kappa_data = _root(covariance, d)
    require_memory(k * d, k * d, f"the Gram matrix of {k} outputs and {d} inputs", "reduce the inputs or the outputs")

    identity = (torch.eye(k, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    lefts = list(accumulate(reversed(chain[1:]), torch.matmul, initial=identity[0]))[::-1]
    rights = list(accumulate(chain[:-1], lambda B, W: W @ B, initial=identity[1]))
    gram = torch.zeros(k, d, k, d, dtype=torch.float64)
    for A, B in zip(lefts, rights, strict=True):
        C = B if root is None else B @ root
        gram.addcmul_((A @ A.T)[:, None, :, None], (C.T @ C)[None, :, None, :])
    if not bool(torch.isfinite(gram).all()):
        raise FloatingPointError("the products of the layers overflow float64: scale all weights down by one factor")

    layers = _factors(lefts, rights, [W.shape[0] for W in chain])
    bound, loose = _bounds(layers)
    return from_eigenvalues(
        torch.linalg.eigvalsh(gram.reshape(k * d, k * d)),
        threshold,
        bound=kappa_data * bound,
        loose_bound=kappa_data * loose,
        product_bound=kappa_data * _product_bound(chain),
        kappa_data=kappa_data,
        layers=layers,
    )


def _chain(weights: Iterable[Any]) -> list[Tensor]:
    chain = [as_float64(W, f"W{number}") for number, W in enumerate(weights, start=1)]
    if not chain:
        raise ValueError("weights is empty: pass [W1, ..., WL], each of shape (out, in), the first layer first")
    for number, (first, second) in enumerate(pairwise(chain), start=1):
        if first.shape[0] != second.shape[1]:
            raise ValueError(
                f"W{number} of shape {tuple(first.shape)} and W{number + 1} of shape {tuple(second.shape)} do not "
                f"chain: W{number + 1} needs {first.shape[0]} columns; weights are (out, in), the first layer first"
            )
    return chain


def _root(covariance: Any, d: int) -> tuple[Tensor | None, float]:
    """R with R R^T = covariance (None for the identity), and the condition number."""
    if covariance is None:
        return None, 1.0
    S = as_float64(covariance, "covariance")
    if S.shape != (d, d):
        raise ValueError(
            f"covariance has the shape {tuple(S.shape)}, the first layer takes {d} inputs: it must be ({d}, {d}), "
            "X X^T / n for X of shape (inputs, samples)"
        )
    error = d * unit_roundoff(covariance)
    size, skew = float(S.abs().max()), float((S - S.T).abs().max())
    if skew > error * size:
        raise ValueError(f"covariance is not symmetric: entries differ by {skew:.2g} from their mirror images")
    values, Q = torch.linalg.eigh(0.5 * (S + S.T))
    smallest, largest = float(values[0]), float(values[-1])
    if smallest < -error * max(size, largest):
        raise ValueError(
            f"covariance is not positive semi-definite: its eigenvalues go from {smallest:.3g} to {largest:.3g}; "
            "if that is rounding, build it in float64"
        )
    values = torch.where(values > error * largest, values, 0.0)  # rounding of the data is no direction of the data
    return Q * values.sqrt(), quotient(largest, float(values[0]))


def _factors(lefts: list[Tensor], rights: list[Tensor], widths: list[int]) -> tuple[LayerFactors, ...]:
    left = [singular_range(A, min(widths[layer:-1], default=None)) for layer, A in enumerate(lefts)]
    right = [singular_range(B.T, min(widths[:layer], default=None)) for layer, B in enumerate(rights)]
    return tuple(LayerFactors(*a, *b) for a, b in zip(left, right, strict=True))


def _bounds(layers: tuple[LayerFactors, ...]) -> tuple[float, float]:
    """The convex combination (as a ratio of sums: no 0 * inf) and the maximum of the same terms, for white data."""
    upper = [_square(f.left_largest * f.right_largest) for f in layers]
    lower = [_square(f.left_smallest * f.right_smallest) for f in layers]
    return quotient(sum(upper), sum(lower)), max(map(quotient, upper, lower))


def _product_bound(chain: list[Tensor]) -> float:
    """Per layer, for white data: s(W_L ... W_{l+1}) >= s(W_L) ... s(W_{l+1}) when the layers are square."""
    if any(W.shape[0] != W.shape[1] for W in chain):
        return math.inf
    ranges = [singular_range(W) for W in chain]

    def all_but(left_out: int, end: int) -> float:
        return math.prod(_square(row[end]) for index, row in enumerate(ranges) if index != left_out)

    lower, upper = (sum(all_but(layer, end) for layer in range(len(chain))) for end in (0, 1))
    return quotient(upper, lower)


def _square(x: float) -> float:
    return x * x


def linear_network_of(objective: Objective, *, skip: float = 0.0, threshold: Threshold = None) -> Conditioning | None:
    """`linear_network` of an objective's model and data; None when the model is something else, or sharded.

    It is one when the chosen parameters are the weights of Linear layers without biases, each used in the order in
    which the model names them, and when the outputs on all of the data are (W_L + skip I) ... (W_1 + skip I) x.
    The covariance is that of the data, (1/N) sum x x^T, in float64. Costs one forward pass.

    Raises what `linear_network` raises.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.conditioning import linear_network_of
        >>> X = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
        >>> f = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), (X, torch.zeros(2, 1)))
        >>> round(linear_network_of(f).kappa, 4)
        9.0
    """
    if objective.sharded:
        return None
    found = objective.agreed(lambda: _own_network(objective, skip))
    if objective.ranks.any(found is None):
        return None
    assert found is not None
    weights, total, samples = found
    counted = objective.ranks.sum(torch.cat([total.reshape(-1), total.new_tensor([samples])]))
    if not counted[-1]:
        return None
    covariance = counted[:-1].reshape(total.shape) / counted[-1]
    return objective.agreed(lambda: linear_network(weights, covariance, skip=skip, threshold=threshold))


def _own_network(objective: Objective, skip: float) -> tuple[list[Tensor], Tensor, int] | None:
    """The weights, the sum of x x^T over this rank's samples and their number; None where the model is another one."""
    with objective.measuring(), torch.no_grad():
        layers = [m for m in objective.module.modules() if isinstance(m, nn.Linear)]
        weights = [m.weight.detach().double() for m in layers]
        chosen = [id(p) for p in objective.leaves()]
        if not layers or chosen != [id(m.weight) for m in layers]:
            return None
        if any(first.shape[0] != second.shape[1] for first, second in pairwise(weights)):
            return None
        d = weights[0].shape[1]
        total, samples = torch.zeros(d, d, dtype=torch.float64, device=weights[0].device), 0
        for e in objective.evaluations():
            outputs, inputs = e.z, e.batch.inputs
            if not isinstance(inputs, Tensor) or outputs.ndim != 2 or inputs.numel() != len(outputs) * d:
                return None
            x = found = inputs.reshape(len(outputs), d).double()
            for W in weights:
                found = found @ (W + skip * torch.eye(*W.shape, dtype=W.dtype, device=W.device)).T
            if not close(found, outputs.double(), outputs.dtype):
                return None
            if e.weight:
                total += x.T @ x
                samples += len(x)
    return weights, total, samples
