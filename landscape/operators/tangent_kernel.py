"""The tangent kernel (1/N) J J^T on all outputs of the data: the dual of the Gauss-Newton matrix (1/N) J^T J.

Both have the same non-zero eigenvalues, so the smaller one tells all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.objective.batch import Batch
from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.gauss_newton import JacobianClaim, JacobianGraph
from landscape.operators.self_check import Claims
from landscape.operators.tangent_gram import Rows, tangent_gram


class TangentKernel(ObjectiveOperator):
    """(1/N) J J^T, `(m, m)`, J the derivatives of all m = N k outputs of the data in the chosen parameters.

    Rows are the outputs in the order of the data, row-major within a batch. Outputs whose target is ignored
    (`ignore_index` of a torch loss) have no row, and N counts samples, or positions with a target where each has
    several. The loss plays no other part: `reduction` and class weights do not scale it. One forward pass is made
    when it is built, to see the outputs' shapes.

    Attributes:
        samples: N.

    Raises:
        TypeError: the model does not return one tensor.
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
        self.rows, self.samples = output_rows(objective)
        m = max((r.stop for r in self.rows.values()), default=0)
        if m == 0:
            raise ValueError("the data has no outputs: every batch is empty or all its targets are ignored")
        super().__init__(objective, m)

    def gram(self) -> Tensor:
        """The matrix, exact, `(m, m)` float64 on the objective's device, without a product.

        Its entries carry the rounding of the forward pass. Raises `MemoryError` when it does not fit the budget,
        `WrongDerivatives` when the Jacobian is not the outputs' own.
        """
        self._check()
        m = self.shape[0]
        free = self.memory - 8 * m * m
        if free < 8 * m * m:
            raise MemoryError(
                f"the tangent kernel of {m} outputs needs {16 * m * m / 2**30:.2g} GiB, the budget is "
                f"{self.memory / 2**30:.2g} GiB: {math.isqrt(self.memory // 16)} outputs would fit (fewer samples, or "
                "memory= of the objective), or use products with it, which need no matrix"
            )
        return tangent_gram(self.objective, self.rows, free).div_(self.samples)

    def to_dense(self) -> Tensor:
        """The matrix, `(m, m)` in the operator's dtype; see `gram`."""
        return self.gram().to(self.dtype)

    def _graph(self, e: Evaluation) -> JacobianGraph:
        return JacobianGraph(self.objective, e, lambda U: U)

    def _product(self, V: Tensor) -> Tensor:
        with self._explained(), self.objective.measuring():
            return self._kernel_product(V)

    def _kernel_product(self, V: Tensor) -> Tensor:
        pulled = torch.zeros(len(V), self.objective.size, dtype=self.dtype, device=self.device)
        for batch, graph in self._passes():
            pulled += graph.vjp(self._cotangents(V, self.rows[batch.index]))
        product = torch.empty_like(V)
        for batch, graph in self._passes():
            own = self.rows[batch.index]
            outputs = graph.jvp(pulled).reshape(len(V), -1)
            product[:, own.start : own.stop] = outputs[:, own.kept].to(self.dtype)
        return product / self.samples

    def _passes(self) -> Iterator[tuple[Batch, JacobianGraph]]:
        for batch, kept, _ in self._graphs():
            graph = kept if kept is not None else self._build(batch)[0]
            if isinstance(graph, JacobianGraph):
                yield batch, graph

    def _cotangents(self, V: Tensor, own: Rows) -> Tensor:
        """The part of rows `(k, m)` that belongs to a batch, in the shape of its outputs."""
        W = torch.zeros(len(V), own.shape.numel(), dtype=V.dtype, device=V.device)
        W[:, own.kept] = V[:, own.start : own.stop]
        return W.reshape(len(V), *own.shape)


def output_rows(objective: Objective) -> tuple[dict[int, Rows], int]:
    """The rows of J by batch, and N."""
    rows: dict[int, Rows] = {}
    start, samples = 0, 0
    with objective.measuring(), torch.no_grad():
        for e in objective.evaluations():
            outputs = e.rows
            targets = with_target(e)
            kept: Tensor | slice = slice(None)
            stop = start + outputs.numel()
            if targets is None:
                samples += len(outputs)
            else:
                samples += int(targets.narrow(min(1, outputs.ndim - 1), 0, 1).sum())
                if not bool(targets.all()):
                    kept = targets.reshape(-1).nonzero()[:, 0]
                    stop = start + len(kept)
            rows[e.batch.index] = Rows(start, stop, outputs.shape, kept, e.weight)
            start = stop
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
