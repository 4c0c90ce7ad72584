"""Gradients of single samples, as vectors and as products with vectors, weighted by their loss terms.

c_i g_i is the gradient of the sum of sample i's loss terms: g_i of their mean, c_i their number (their total weight).
The products c_i x.g_i of all samples of a batch come from one product of the Jacobian of its outputs with x, so that no
gradient of a sample is formed; where the loss is no function of one tensor of outputs with a row for each sample, each
sample is differentiated alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.memory import budget
from landscape.objective.batch import Batch, samples, split
from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.autograd import graph_bytes
from landscape.operators.jacobian_graph import JacobianGraph
from landscape.operators.jacobians import separable
from landscape.operators.output_curvature import nothing
from landscape.operators.units import unit_slopes

_TOGETHER = 16  # vectors that go through a batch's graph at once, at most


def require_alone(objective: Objective) -> None:
    """Raises `TypeError` for an objective of several processes: samples would be numbered by rank."""
    if objective.sharded or objective.ranks.several:
        raise TypeError(
            "single samples are those of one process: give an Objective of the whole data with process_group=None and "
            "a model that is not sharded"
        )


def singles(objective: Objective) -> list[Batch]:
    """The samples of the data, a batch each. Raises `ValueError` for batches that cannot be cut into samples."""
    return [one for batch in objective.sweep() for one in split(batch, 1)]


def gradients(objective: Objective, some: list[Batch]) -> Tensor:
    """g_i of each of some samples, `(n, k)`; zero for a sample without loss terms."""
    columns = []
    with objective.measuring():
        for one in some:
            e = objective.evaluate(one)
            if e.weight:
                columns.append(objective.join(e.loss_and_gradient()[1]))
            else:
                columns.append(torch.zeros(objective.size, dtype=objective.dtype, device=objective.device))
    return torch.stack(columns, dim=-1)


def products(objective: Objective, X: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch, c `(m,)` and c_i x.g_i `(k, m)` for the columns x of X `(n, k)`, both float64 on the host.

    Raises `TypeError` where the loss of a batch is not made of its samples' own losses, or its outputs are not of
    single samples (batch statistics); `ValueError` for batches that cannot be cut into samples.
    """
    first = True
    with objective.measuring():
        for batch in objective.sweep():
            e = objective.evaluate(batch)
            m = samples(batch)
            if not e.weight:
                yield torch.zeros(m, dtype=torch.float64), torch.zeros(X.shape[1], m, dtype=torch.float64)
                continue
            if first and m > 1 and not separable(objective, batch, e.rows):
                raise TypeError(
                    "the outputs for a sample depend on the other samples of its batch (batch statistics, dropout), or "
                    'the batch cannot be cut: mode="eval" may make them independent'
                )
            first = False
            weights, found = _of_batch(objective, batch, e, X)
            _confirm(objective, e, weights)
            yield weights, found


def _of_batch(objective: Objective, batch: Batch, e: Evaluation, X: Tensor) -> tuple[Tensor, Tensor]:
    try:
        slopes, weights, dims = unit_slopes(e.detach(), "sample")
    except TypeError:
        return _one_by_one(objective, batch, e, X)
    graph = JacobianGraph(objective, e, nothing)
    # vectors that go through a graph together need its memory once each, and that of the graph of J^T u
    room = budget(objective.memory, objective.device) // max(1, 3 * graph_bytes(graph.roots()))
    rows = [graph.jvp(part) for part in X.T.contiguous().split(max(1, min(_TOGETHER, room)))]
    moved = torch.cat([(JX * slopes).flatten(2).sum(-1) if dims else JX * slopes for JX in rows])
    return weights.double().cpu(), (weights * moved).double().cpu()


def _one_by_one(objective: Objective, batch: Batch, e: Evaluation, X: Tensor) -> tuple[Tensor, Tensor]:
    whole = e.weight * (X.T @ objective.join(e.loss_and_gradient()[1])).double().cpu()
    weights, columns = [], []
    for one in split(batch, 1):
        alone = objective.evaluate(one)
        weights.append(float(alone.weight))
        if alone.weight:
            g = objective.join(alone.loss_and_gradient()[1])
            columns.append(alone.weight * (X.T @ g).double().cpu())
        else:
            columns.append(torch.zeros_like(whole))
    found = torch.stack(columns, dim=1)
    if float((found.sum(dim=1) - whole).norm()) > objective.rounding**0.5 * float(found.norm(dim=0).sum()):
        raise TypeError(
            "the loss of a batch is not made of its samples' own losses (a contrastive loss, a ratio, a penalty of the "
            "parameters in the loss: leave that out and give it as damping), so no sample can be taken out of it"
        )
    return torch.tensor(weights, dtype=torch.float64), found


def _confirm(objective: Objective, e: Evaluation, weights: Tensor) -> None:
    """The weights of the samples are that of the batch. Raises `TypeError` where they are not."""
    if objective.criterion.reduction == "sum":
        return
    total = float(weights.sum())
    if abs(total - e.weight) > 1e-5 * e.weight:
        raise TypeError(
            f"the samples of batch {e.batch.index} have {total:g} loss terms, the batch counts as {e.weight:g}: what "
            "one sample weighs cannot be told (count= of a whole batch)"
        )
