"""Hutchinson's estimate of the Hessian's diagonal: the mean over random z of z * (H z), E z z^T = I."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.autograd import gradient_graph, vjp
from landscape.operators.vectors import Kind
from solvers.first_order.base import Update, buffers
from solvers.preconditioned.base import Curved, widened


def hutchinson(
    loss: Tensor, leaves: list[Tensor], probes: int, kind: Kind, generator: torch.Generator, *, trusted: bool = False
) -> tuple[list[Tensor | None], list[Tensor]]:
    """The gradient, None for leaves that the loss does not use, and the estimate, one graph for both.

    Args:
        loss: a scalar with its graph.
        leaves: what it is differentiated in.
        probes: how many z.
        kind: "rademacher" or "normal". Off-diagonal entries are all of the first one's error.
        generator: numbers are drawn on its device and moved.
        trusted: a graph like this one was here before, and had second derivatives everywhere.
    """
    gradient = gradient_graph(loss, leaves, trusted=trusted)
    estimates: list[Tensor] = []
    for left in range(probes - 1, -1, -1):
        z = draw(leaves, kind, generator)
        found = [widened(h) for h in vjp(gradient, leaves, z, keep=left > 0)]
        torch._foreach_mul_(found, [widened(one) for one in z])
        if estimates:
            torch._foreach_add_(estimates, found)
        else:
            estimates = found
    if probes > 1:
        torch._foreach_div_(estimates, probes)
    return list(gradient), estimates


def draw(leaves: list[Tensor], kind: Kind, generator: torch.Generator) -> list[Tensor]:
    """Independent numbers of mean 0 and variance 1 in the leaves' shapes and dtypes, on their devices."""
    source, sizes = generator.device, [p.numel() for p in leaves]
    dtype = torch.float64 if any(p.dtype == torch.float64 for p in leaves) else torch.float32
    if kind == "normal":
        z = torch.randn(sum(sizes), generator=generator, device=source, dtype=dtype)
    else:  # one bit of a random word for each entry: five times as fast as a draw for each
        words = torch.randint(-(2**63), 2**63 - 1, (sum(sizes) // 64 + 1,), generator=generator, device=source)
        shifts = torch.arange(8, dtype=torch.uint8, device=source)
        bits = (words.view(torch.uint8).unsqueeze(1) >> shifts).bitwise_and_(1)
        z = bits.view(-1)[: sum(sizes)].to(dtype).mul_(2).sub_(1)
    return [piece.view(p.shape).to(p) for piece, p in zip(z.split(sizes), leaves, strict=True)]


class HessianDiagonal(Curved):
    """Curvature by Rademacher z, as a running mean with the weight `beta` that begins with the first estimate."""

    @override
    def _estimate(self, loss: Tensor, leaves: list[Tensor], trusted: bool) -> tuple[list[Tensor | None], list[Tensor]]:
        return hutchinson(loss, leaves, self.probes, "rademacher", self.generator, trusted=trusted)

    @override
    def _absorb(self, update: Update, estimates: list[Tensor]) -> None:
        curvature = buffers(update.states, update.parameters, "curvature")
        for D, d, state in zip(curvature, estimates, update.states, strict=True):
            D.lerp_(d, 1.0 - update.group["beta"]) if "estimates" in state else D.copy_(d)
