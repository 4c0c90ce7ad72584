"""The jobs of `runs.gauss_newton_conditioning` on batch norm: one linear hidden layer, closed form.

F(x) = W h, h = z = V x without batch norm, h = (z - mean) / s with it. All derivatives of F are affine in x, so J is
(X' (x) I) M with a row (x, 1) of X' for each sample, and J J^T / n has the non-zero eigenvalues of the matrix
S^(1/2) M M^T S^(1/2), S = X'^T X' / n, whose size is outputs times inputs + 1, whatever the samples and the width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.conditioning import Conditioning, from_eigenvalues
from probes.digits import CLASSES, digits
from probes.sweep.jobs import Job, JobContext
from runs.gauss_newton_conditioning.data import ConditionRows, initialisations, kaiming
from runs.shared.data import fashion_mnist

NORMS = ("none", "eval", "train")
WIDTHS = (8, 16, 24, 32, 48)
_EPS = 1e-5  # of torch's batch norm


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    settings = (
        {"data": "digits", "samples": 100, "inits": 2} if quick else {"data": "fashion", "samples": 1000, "inits": 5}
    )
    return [
        Job(f"norm-{width}", batch_norm, {"width": width, **settings}) for width in (WIDTHS[:2] if quick else WIDTHS)
    ]


def batch_norm(job: JobContext, data: str, width: int, samples: int, inits: int) -> dict[str, Any]:
    """kappa of the same weights without batch norm, with it in eval mode, and of the whole batch in train mode."""
    x = raw(data, samples)
    with job.trace(width=width, samples=samples) as trace:
        rows = ConditionRows(trace, "width", "norm", "init")
        for init, source, _ in initialisations(job, inits, [width]):
            V, W = kaiming([x.shape[1], width, CLASSES], source)
            for number, norm in enumerate(NORMS):
                rows.add(normed(V, W, x, norm), width=width, norm=number, init=init)
    return {"width": width, "inputs": x.shape[1], "samples": samples}


def raw(data: str, samples: int) -> Tensor:
    """The first images of 8 x 8 pixels in [0, 1], evenly spaced ones of Fashion-MNIST's 28 x 28; `(samples, 64)`."""
    if data == "digits":
        return (digits().train[0][:samples].flatten(1).double() + 1) / 2
    picks = torch.linspace(0, 27, 8).round().long()
    return fashion_mnist().train[0][:samples, 0][:, picks][:, :, picks].flatten(1).double()


def normed(V: Tensor, W: Tensor, x: Tensor, norm: str) -> Conditioning:
    """kappa by all parameters of W (batch norm of) V x on `(n, d)`: V `(m, d)`, W `(k, m)`, scales 1 and shifts 0.

    "train": J is that of all outputs of the one batch together, whose samples share mean and variance. "eval": these
    are constants, those of x, the variance with n - 1 in the place of n as in torch. "none": no batch norm.
    """
    n, d = x.shape
    affine = torch.cat([x, torch.ones(n, 1, dtype=x.dtype)], dim=1)  # X'
    S = affine.T @ affine / n
    hidden = torch.cat([V, torch.zeros(len(V), 1, dtype=x.dtype)], dim=1)  # of the affine inputs, (m, d + 1)
    inverse = torch.ones(len(V), dtype=x.dtype)
    constant = torch.zeros(d + 1, dtype=x.dtype)
    constant[d] = 1
    if norm != "none":
        z = x @ V.T
        inverse = (z.var(dim=0, correction=int(norm == "eval")) + _EPS).rsqrt()
        hidden = (hidden - z.mean(dim=0)[:, None] * constant) * inverse[:, None]
    # by V: the derivative of h_i in V_i is an affine map of x, (m, d + 1, d)
    of_inputs = torch.eye(d + 1, d, dtype=x.dtype).expand(len(V), -1, -1).clone()
    if norm == "train":  # a sample moves the mean and the variance of all
        of_inputs[:, d] -= x.mean(dim=0)
        of_inputs -= hidden[:, :, None] * (hidden @ S[:, :d])[:, None]
    of_inputs *= inverse[:, None, None]
    identity = torch.eye(len(W), dtype=x.dtype)
    outer = W.T[:, :, None] * W.T[:, None, :]  # W_i W_i^T, (m, k, k)
    columns = of_inputs @ of_inputs.mT
    if norm != "none":  # by the scales and the shifts
        columns = columns + hidden[:, :, None] * hidden[:, None, :] + constant[:, None] * constant
    gram = torch.einsum("iab,icd->acbd", columns, outer)
    gram += (hidden.T @ hidden)[:, None, :, None] * identity[:, None]
    return _condition(gram.reshape(len(W) * (d + 1), -1), S, len(W))


def _condition(gram: Tensor, S: Tensor, outputs: int) -> Conditioning:
    """Of S^(1/2) gram S^(1/2), S for each output."""
    values, vectors = torch.linalg.eigh(S)
    root = torch.kron((vectors * values.clamp(min=0).sqrt()).contiguous(), torch.eye(outputs, dtype=S.dtype))
    return from_eigenvalues(torch.linalg.eigvalsh(root.T @ gram @ root))
