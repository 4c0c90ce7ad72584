"""One hidden layer with (leaky) ReLU, F(x) = W s(V x): the condition number of the Gauss-Newton matrix and bounds.

The non-zero eigenvalues of G = (1/n) sum_i J_i^T J_i are those of the dual Gram matrix (1/n) J J^T, which is, with
D = s'(V X) and the sum over hidden units h,

    n K[(a, i), (b, j)] = (X^T X)_ab sum_h D_ha D_hb W_ih W_jh  +  delta_ij (s(V X)^T s(V X))_ab

for samples a, b and outputs i, j (arXiv 2411.02139, the dual matrix of a leaky ReLU network).
"""

from __future__ import annotations

from typing import Any

import torch

from landscape.conditioning.bounds import quotient, singular_range
from landscape.conditioning.inputs import Threshold, absolute_threshold, as_float64, finite, require_memory
from landscape.conditioning.results import Conditioning, from_eigenvalues


def leaky_relu_network(V: Any, W: Any, X: Any, *, slope: float, threshold: Threshold = None) -> Conditioning:
    """kappa of the Gauss-Newton matrix of F(x) = W s(V x) on the inputs X, and its upper bounds.

    With lmin, lmax the extreme eigenvalues, T = s(V X)^T s(V X) and N = lmin(X^T X) lmin(W W^T):

        bound        (lmax(X^T X) lmax(W W^T) + lmax(T)) / (slope^2 N + lmin(T))
        loose_bound  lmax(X^T X) (lmax(W W^T) + ||V||_F^2) over the same denominator
        estimates    "b1.5" and "b2", which the paper also states, with lmax(X^T V^T V X) in place of lmax(T) and, for
                     b2, slope^2 lmin(X^T V^T V X) in place of lmin(T). They are no bounds: kappa exceeds them on
                     some networks.

    N is 0 with more samples than inputs or more outputs than hidden units, lmin(T) with more samples than hidden
    units; a bound without a denominator is inf. `product_bound` is always inf, `layers` empty.

    Args:
        V: `(m, d)`, the first layer, without bias. Tensors of any device and dtype, Parameters or numpy arrays;
            computed in float64 on the host.
        W: `(k, m)`, the second layer.
        X: `(d, n)`, a column per sample.
        slope: of negative inputs, as torch's `negative_slope`; 0 is ReLU. The derivative at 0 is the slope, as in
            torch. Outside [0, 1] (-1 is the absolute value) both bounds take min(1, slope^2) for slope^2 and
            multiply lmax(W W^T) and ||V||_F^2 by max(1, slope^2); there are no estimates then.
        threshold: see `from_eigenvalues`; "paper" counts the entries of V and W as parameters.

    Returns:
        `Conditioning` with the n * k eigenvalues of (1/n) J J^T. kappa_data is that of the smaller of X X^T and
        X^T X. For all-zero data kappa is inf, rank 0.

    Raises:
        TypeError: something is complex or holds no numbers; a slope that is no number.
        ValueError: V, W and X do not chain, are not 2-D or not finite; a slope that is not finite.
        MemoryError: a matrix of n * k rows does not fit into half of the memory that is free.
        FloatingPointError: the Gram matrix overflows float64.

    Example:
        >>> import torch
        >>> from landscape.conditioning import leaky_relu_network
        >>> V, W, X = torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.eye(2)
        >>> found = leaky_relu_network(V, W, X, slope=0.5)
        >>> round(found.kappa, 4), round(found.bound, 4)
        (1.75, 2.6667)
    """
    slope = finite(slope, "slope")
    V, W, X = as_float64(V, "V"), as_float64(W, "W"), as_float64(X, "X")
    threshold = absolute_threshold(threshold, V.numel() + W.numel())
    (m, d), (k, hidden), (inputs, n) = V.shape, W.shape, X.shape
    if inputs != d:
        raise ValueError(f"X of shape {(inputs, n)} must have the {d} rows that V of shape {(m, d)} takes, (d, n)")
    if hidden != m:
        raise ValueError(f"W of shape {(k, hidden)} must have the {m} columns that V of shape {(m, d)} gives")
    advice = "take fewer samples"
    require_memory(n * k, n * k, f"the Gram matrix of {n} samples and {k} outputs", advice)
    require_memory(n * k, m, "the derivative by the hidden units", advice)

    hidden_in = V @ X
    D = torch.where(hidden_in > 0, torch.ones_like(hidden_in), slope)
    S = hidden_in * D
    back = (D.T[:, None, :] * W).reshape(n * k, m)
    gram = (back @ back.T).reshape(n, k, n, k)
    gram *= (X.T @ X)[:, None, :, None]
    gram.diagonal(dim1=1, dim2=3).add_((S.T @ S)[..., None])
    gram /= n
    if not bool(torch.isfinite(gram).all()):
        raise FloatingPointError("the Gram matrix overflows float64: scale the weights or the data down")

    x_min, x_max = _eigenvalue_range(X.T)
    w_min, w_max = _eigenvalue_range(W)
    t_min, t_max = _eigenvalue_range(S.T)
    data_min, data_max = _eigenvalue_range(X if d <= n else X.T)
    low, high = min(1.0, slope * slope), max(1.0, slope * slope)
    denominator = low * x_min * w_min + t_min
    estimates = {}
    if 0 <= slope <= 1:
        p_min, p_max = _eigenvalue_range(hidden_in.T)
        estimates["b1.5"] = quotient(x_max * w_max + p_max, denominator)
        estimates["b2"] = quotient(x_max * w_max + p_max, low * (x_min * w_min + p_min))
    return from_eigenvalues(
        torch.linalg.eigvalsh(gram.reshape(n * k, n * k)),
        threshold,
        bound=quotient(high * x_max * w_max + t_max, denominator),
        loose_bound=quotient(high * x_max * (w_max + float(V.square().sum())), denominator),
        kappa_data=quotient(data_max, data_min),
        estimates=estimates,
    )


def _eigenvalue_range(M: torch.Tensor) -> tuple[float, float]:
    """(lambda_min, lambda_max) of M M^T."""
    smallest, largest = singular_range(M)
    return smallest * smallest, largest * largest
