"""The Gauss-Newton-Bartlett estimate of the Gauss-Newton matrix's diagonal, from the graph of a loss alone.

With labels y^ drawn from the model, and B terms in the mean, B g^ * g^ with g^ the gradient of the mean loss on y^
(arXiv 2305.14342, Algorithm 2): its mean is the diagonal of J^T (d2 loss / d logits2) J.

A cross-entropy is a linear function of the logarithms of the model's probabilities, sum_tc b_tc (-log p_tc), whatever
its labels, weights of classes, ignored targets, smoothing and reduction are, and its second derivative in the logits of
term t is a_t (diag(p_t) - p_t p_t^T), a_t = sum_c b_tc. So b is the derivative of the loss where the log-softmax is in
its graph, and g^ = sum_t sqrt(a_t) J_t^T (p_t - e_y^) gives the same estimate for any a; a_t = 1 / B is the published.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from landscape.operators.fisher import categorical
from solvers.base import to_dense
from solvers.preconditioned.base import widened


def sampled_labels(
    loss: Tensor, leaves: list[Tensor], probes: int, generator: torch.Generator
) -> tuple[list[Tensor | None], list[Tensor]]:
    """The gradient, None for leaves that the loss does not use, and the estimate: one more backward pass a probe.

    Raises `ValueError` where the graph shows no cross-entropy.
    """
    nodes = _log_softmaxes(loss)
    slopes = [_slope(loss, node) for node in nodes]
    gradient = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    estimates = [torch.zeros_like(widened(p)) for p in leaves]
    for _ in range(probes):
        pulls = [_pull(node, b, generator) for node, b in zip(nodes, slopes, strict=True)]
        edges = [GradientEdge(node, 0) for node in nodes]
        drawn = torch.autograd.grad(edges, leaves, pulls, retain_graph=True, allow_unused=True)
        for total, g in zip(estimates, drawn, strict=True):
            if g is not None:
                wide = widened(to_dense(g))
                total.addcmul_(wide, wide, value=1.0 / probes)
    return [None if g is None else to_dense(g) for g in gradient], estimates


def _log_softmaxes(loss: Tensor) -> list[Any]:
    """The nodes of the graph that take logarithms of probabilities and lead to the loss directly."""
    found, seen, stack = [], set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__.startswith("LogSoftmax"):
            found.append(node)
        else:
            stack.extend(following for following, _ in node.next_functions)
    if not found:
        raise ValueError(
            'curvature="gauss-newton" draws labels from the model, and no log_softmax leads to this loss: it takes '
            'cross-entropies of torch.nn, outside of torch.compile; curvature="hessian" takes any loss'
        )
    return found


def _slope(loss: Tensor, node: Any) -> Tensor:
    """-b, the derivative of the loss in the logarithms. Raises `ValueError` where the loss is not linear in them."""
    edge = GradientEdge(node, 0)
    (slope,) = torch.autograd.grad(loss, [edge], create_graph=True)
    if slope.requires_grad:
        (bend,) = torch.autograd.grad(slope, [edge], slope.detach(), retain_graph=True, allow_unused=True)
        if bend is not None and bool(bend.any()):
            raise ValueError(
                'curvature="gauss-newton" takes a cross-entropy, and this loss is not linear in the log-probabilities: '
                'use curvature="hessian"'
            )
    return slope.detach()


def _pull(node: Any, slope: Tensor, generator: torch.Generator) -> Tensor:
    """-sqrt(a_t) e_y^ for labels drawn from the model: what a log-softmax takes back to sqrt(a_t) (p_t - e_y^)."""
    log_p = node._saved_result
    dim = node._saved_dim % 2**64
    dim = dim - 2**64 if dim >= 2**63 else dim
    weight = -slope.sum(dim, keepdim=True)
    if bool((weight < 0).any()):
        raise ValueError('curvature="gauss-newton" takes a cross-entropy, and this loss has terms of negative weight')
    labels = categorical(log_p.exp(), dim, generator)
    return torch.zeros_like(slope).scatter_(dim, labels, -weight.sqrt())
