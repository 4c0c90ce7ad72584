"""Hutchinson's estimate of the Hessian's diagonal: the mean over random z of z * (H z), E z z^T = I."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.autograd import gradient_graph, vjp
from landscape.operators.vectors import Kind
from solvers.preconditioned.base import widened


def hutchinson(
    loss: Tensor, leaves: list[Tensor], probes: int, kind: Kind, generator: torch.Generator
) -> tuple[list[Tensor | None], list[Tensor]]:
    """The gradient, None for leaves that the loss does not use, and the estimate, one graph for both.

    Args:
        loss: a scalar with its graph.
        leaves: what it is differentiated in.
        probes: how many z.
        kind: "rademacher" or "normal". Off-diagonal entries are all of the first one's error.
        generator: numbers are drawn on its device and moved.
    """
    gradient = gradient_graph(loss, leaves)
    estimates: list[Tensor] = []
    for _ in range(probes):
        z = [draw(p, kind, generator) for p in leaves]
        found = [widened(h) for h in vjp(gradient, leaves, z)]
        torch._foreach_mul_(found, [widened(one) for one in z])
        if estimates:
            torch._foreach_add_(estimates, found)
        else:
            estimates = found
    if probes > 1:
        torch._foreach_div_(estimates, probes)
    return list(gradient), estimates


def draw(like: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """Independent numbers of mean 0 and variance 1 in the tensor's shape and dtype, on its device."""
    source = generator.device
    if kind == "normal":
        return torch.randn(like.shape, generator=generator, device=source).to(like)
    # one bit of a random word for each entry: five times as fast as a draw for each
    words = torch.randint(-(2**63), 2**63 - 1, (like.numel() // 64 + 1,), generator=generator, device=source)
    shifts = torch.arange(8, dtype=torch.uint8, device=source)
    bits = (words.view(torch.uint8).unsqueeze(1) >> shifts).bitwise_and_(1)
    return bits.view(-1)[: like.numel()].reshape(like.shape).to(like).mul_(2).sub_(1)
