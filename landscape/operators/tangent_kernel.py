"""The tangent kernel (1/N) J J^T on all outputs of the data: the dual of the Gauss-Newton matrix (1/N) J^T J.

Both have the same non-zero eigenvalues, so the smaller one tells all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.objective.together import Sum
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.gauss_newton import JacobianClaim
from landscape.operators.jacobian_graph import JacobianGraph
from landscape.operators.self_check import Claims
from landscape.operators.tangent_gram import Rows, tangent_gram
from landscape.ranks import agreed_on


class TangentKernel(ObjectiveOperator):
    """(1/N) J J^T, `(m, m)`, J the derivatives of all m = N k outputs of the data in the chosen parameters.

    Rows are the outputs in the order of the data, row-major within a batch; of several ranks in the order in which
    batches are dealt out, one of each rank in turn. Vectors are whole on every rank. Outputs whose target is ignored
    (`ignore_index` of a torch loss) have no row, and N counts samples, or positions with a target where each has
    several. The loss plays no other part: `reduction` and class weights do not scale it. One forward pass is made
    when it is built, to see the outputs' shapes.

    Attributes:
        samples: N.

    Raises:
        TypeError: the model does not return one tensor, or is sharded.
        ValueError: the data has no outputs with a target.

    Example:
        >>> import torch
        >>> from landscape import Objective, TangentKernel
        >>> model = torch.nn.Linear(8, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2, 8), torch.zeros(2, 1)))
        >>> TangentKernel(f).gram()
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """

    claims: Claims = (JacobianClaim,)
    positive_semidefinite = True

    def __init__(self, objective: Objective) -> None:
        objective.only_whole("the tangent kernel")
        self.rows, self.samples, m = output_rows(objective)
        super().__init__(objective, m)

    def gram(self) -> Tensor:
        """The matrix, exact, `(m, m)` float64 on the objective's device, without a product.

        Its entries carry the rounding of the forward pass. Raises `MemoryError` when it does not fit the budget,
        `WrongDerivatives` when the Jacobian is not the outputs' own.
        """
        self._check()
        if self.objective.ranks.several:
            whole = self.objective.whole()
            return self.objective.agreed(lambda: self._gram_of(whole))
        m = self.shape[0]
        free = self.memory - 8 * m * m
        if free < 8 * m * m:
            raise MemoryError(
                f"the tangent kernel of {m} outputs needs {16 * m * m / 2**30:.2g} GiB, the budget is "
                f"{self.memory / 2**30:.2g} GiB: {math.isqrt(self.memory // 16)} outputs would fit (fewer samples, or "
                "memory= of the objective), or use products with it, which need no matrix"
            )
        return tangent_gram(self.objective, self.rows, free).div_(self.samples)

    def _gram_of(self, whole: Objective | None) -> Tensor:
        if whole is None:
            raise MemoryError(
                "the exact tangent kernel needs the data of all ranks on each, which does not fit the budget: give a "
                "larger memory=, or use products with it"
            )
        return TangentKernel(whole).gram()

    def to_dense(self) -> Tensor:
        """The matrix, `(m, m)` in the operator's dtype; see `gram`."""
        return self.gram().to(self.dtype)

    def _graph(self, e: Evaluation) -> JacobianGraph:
        return JacobianGraph(self.objective, e, lambda U: U)

    def _product(self, V: Tensor) -> Tensor:
        objective = self.objective

        def pull() -> Sum:
            pulled = V.new_zeros(len(V), objective.size)
            with self._explained(), objective.measuring():
                for own, graph in self._passes():
                    pulled += graph.vjp(self._cotangents(V, own))
            return pulled, 1.0, 1.0

        def push() -> Sum:
            product = torch.zeros_like(V)  # but for the rows of this rank
            with self._explained(), objective.measuring():
                for own, graph in self._passes():
                    outputs = graph.jvp(pulled).reshape(len(V), -1)
                    product[:, own.start : own.stop] = outputs[:, own.kept].to(self.dtype)
            return product, 1.0, 1.0

        pulled, _, _ = objective.summed(pull, lambda: V.new_zeros(len(V), objective.size))
        product, _, _ = objective.summed(push, lambda: torch.zeros_like(V))
        objective.tuning.settle((type(self).__name__, len(V) > 1), objective.ranks)
        return product / self.samples

    def _passes(self) -> Iterator[tuple[Rows, JacobianGraph]]:
        """The batches that have rows."""
        for batch, kept, _ in self._graphs():
            if (own := self.rows.get(batch.index)) is None:
                continue
            graph = kept if kept is not None else self._build(batch)[0]
            if isinstance(graph, JacobianGraph):
                yield own, graph

    def _cotangents(self, V: Tensor, own: Rows) -> Tensor:
        """The part of rows `(k, m)` that belongs to a batch, in the shape of its outputs."""
        W = torch.zeros(len(V), own.shape.numel(), dtype=V.dtype, device=V.device)
        W[:, own.kept] = V[:, own.start : own.stop]
        return W.reshape(len(V), *own.shape)


def output_rows(objective: Objective) -> tuple[dict[int, Rows], int, int]:
    """The rows of J by batch for those of this rank, N and the number of rows, m.

    Raises `ValueError` where there are none.
    """
    rows, samples = objective.agreed(lambda: _own_rows(objective))
    every = objective.ranks.gathered((samples, {index: own.stop for index, own in rows.items()}))
    sizes = {index: size for _, found in every for index, size in found.items()}
    ends = dict(zip(sorted(sizes), accumulate(sizes[index] for index in sorted(sizes)), strict=True))
    if not sum(sizes.values()):
        raise agreed_on(ValueError("the data has no outputs: every batch is empty or all its targets are ignored"))
    placed = {i: replace(own, start=ends[i] - own.stop, stop=ends[i]) for i, own in rows.items()}
    return placed, sum(found for found, _ in every), max(ends.values())


def _own_rows(objective: Objective) -> tuple[dict[int, Rows], int]:
    """Of this rank's batches, as if each were the first."""
    rows: dict[int, Rows] = {}
    samples = 0
    with objective.measuring(), torch.no_grad():
        for e in objective.evaluations():
            weight, outputs, targets = e.weight, e.rows, with_target(e)
            if not weight:  # run in lockstep
                continue
            kept: Tensor | slice = slice(None)
            size = outputs.numel()
            if targets is None:
                samples += len(outputs)
            else:
                samples += int(targets.narrow(min(1, outputs.ndim - 1), 0, 1).sum())
                if not bool(targets.all()):
                    kept = targets.reshape(-1).nonzero()[:, 0]
                    size = len(kept)
            rows[e.batch.index] = Rows(0, size, outputs.shape, kept, weight)
    return rows, samples


def with_target(e: Evaluation) -> Tensor | None:
    """Which outputs have a class-index target that is not ignored, in their shape; None for other losses."""
    e = e.single
    known, targets, outputs = e.criterion.known, e.batch.targets, e.rows
    if known is None or known.denominator != "classes" or not isinstance(targets, Tensor):
        return None
    if targets.is_floating_point():  # probabilities
        return torch.ones_like(outputs, dtype=torch.bool)
    given = targets != known.options.get("ignore_index", -100)
    return given.unsqueeze(min(1, outputs.ndim - 1)).expand_as(outputs)
