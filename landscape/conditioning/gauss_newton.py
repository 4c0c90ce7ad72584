"""The condition number of the Gauss-Newton matrix of any network, exact through the smaller of two Gram matrices.

G = (1/N) J^T J `(n, n)` and the tangent kernel (1/N) J J^T `(m, m)` have the same non-zero eigenvalues, and so have
J^T B J and B^(1/2) J J^T B^(1/2) with B the loss's second derivative in the outputs (arXiv 2411.02139 reports G
without B, also for networks trained with cross-entropy).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from landscape.conditioning.inputs import Threshold, absolute_threshold
from landscape.objective.batch import Batch
from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.objective.together import Sum
from landscape.operators.gauss_newton import GaussNewton, JacobianOperator
from landscape.operators.jacobian_graph import JacobianGraph
from landscape.operators.jacobians import close, cotangents, jacobian
from landscape.operators.linear import LinearOperator, require_finite, rounding
from landscape.operators.output_curvature import Curvature, loss_hessian, nothing
from landscape.operators.self_check import self_check
from landscape.operators.tangent_gram import Rows, batches_with_rows, tangent_gram
from landscape.operators.tangent_kernel import TangentKernel, output_rows, with_target
from landscape.spectra.condition import lower_bound, of_eigenvalues
from landscape.spectra.results import ConditionNumber

# Matrices of the Gram matrix's size that exist together: itself, and two that its eigenvalues need.
_COPIES = 3


def gauss_newton(objective: Objective, *, threshold: Threshold = None, loss_hessian: bool = False) -> ConditionNumber:
    """kappa of the Gauss-Newton matrix: the largest over the smallest of its eigenvalues above a threshold.

    Exact, from all eigenvalues in float64, when the smaller of the two Gram matrices fits the objective's memory
    budget three times; else a lower bound from Lanczos, with converged=False. Several ranks gather their data for it,
    which has to fit as well; a sharded model takes n products and an `(n, n)` matrix in place of J. m is the number of
    outputs of the data (those with a target), n that of parameters.

    Args:
        objective: any network that returns one tensor.
        threshold: absolute, >= 0; default min(m, n) * eps * largest with eps that of the forward pass. "paper" is
            the authors' 1e-8 / n, absolute as well, so that it means something else on another scale.
        loss_hessian: True takes G = J^T B J with the loss's second derivative B; False, as the paper, (1/N) J^T J.

    Returns:
        `ConditionNumber` with rank, threshold, smallest, `neighbours` (kappa at the ranks beside) and `eigenvalues`,
        `(min(m, n),)`. `matvecs` counts rows of J, or products when Lanczos was needed.

    Raises:
        ValueError: a negative or not finite threshold; a Jacobian (or B) that is zero; a loss that is not convex in
            its outputs, beyond the budget.
        WrongDerivatives: the Jacobian (or B) is not that of the outputs (or of the loss), as differences show.
        FloatingPointError: entries that are not finite.
        MemoryError: not even a Lanczos basis fits the budget.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.conditioning import gauss_newton
        >>> X = torch.tensor([[1.0], [3.0]]) * torch.eye(2, 8)
        >>> f = Objective(torch.nn.Linear(8, 1, bias=False), torch.nn.MSELoss(), (X, torch.zeros(2, 1)))
        >>> round(gauss_newton(f).kappa, 4)
        9.0
    """
    n = objective.size
    absolute = absolute_threshold(threshold, n)
    checked = self_check(objective, GaussNewton(objective).claims if loss_hessian else JacobianOperator.claims)
    if objective.sharded:
        result = _of_sharded(objective, loss_hessian, absolute)
    else:
        result = _of_kernel(objective, TangentKernel(objective), loss_hessian, absolute)
    result = replace(result, checked=checked)
    if result.largest == 0.0:
        raise ValueError(
            "the Gauss-Newton matrix is zero: no chosen parameter moves any output (dead units, a zero layer, or "
            "outputs that saturate the loss), so it has no condition number"
        )
    return result


def _of_kernel(
    objective: Objective, kernel: TangentKernel, loss_hessian: bool, absolute: float | None
) -> ConditionNumber:
    m, n = kernel.shape[0], objective.size
    size = min(m, n)
    free = int(-objective.ranks.largest(-(kernel.memory - _COPIES * 8 * size * size)))
    whole = objective.whole() if free >= 4 * size * size else None
    if whole is None:
        return _bound(objective, kernel, loss_hessian, absolute)

    def exact() -> Tensor:
        spectrum = _dual if m <= n else _primal
        own = kernel if whole is objective else TangentKernel(whole)
        eigenvalues = spectrum(whole, own, loss_hessian, free)
        require_finite(kernel, eigenvalues)
        return eigenvalues

    return of_eigenvalues(objective.agreed(exact), absolute, rounding(kernel), matvecs=m)


def _of_sharded(objective: Objective, loss_hessian: bool, absolute: float | None) -> ConditionNumber:
    """From n products: no rank has the rows of J."""
    _, samples, m = output_rows(objective)
    A = GaussNewton(objective) if loss_hessian else _OuterProduct(objective, samples)
    n = A.shape[0]
    try:
        if 8 * n * n * (1 + _COPIES) > A.memory:
            return _beyond(A, min(m, n), absolute)
        G = A.to_dense().double()
        require_finite(A, G)
        eigenvalues = torch.linalg.eigvalsh(0.5 * (G + G.T))
        largest_first = eigenvalues.abs().argsort(descending=True)
        return of_eigenvalues(eigenvalues[largest_first[: min(m, n)]], absolute, rounding(A), matvecs=n)
    finally:
        A.release()


# -- J J^T -----------------------------------------------------------------------------------------------------------


def _dual(objective: Objective, kernel: TangentKernel, loss_hessian: bool, free: int) -> Tensor:
    """Eigenvalues of (1/N) J J^T, or those of B J J^T, which it shares with J^T B J; `(m,)`."""
    K = tangent_gram(objective, kernel.rows, free)
    if not loss_hessian:
        return torch.linalg.eigvalsh(K.div_(kernel.samples))
    blocks = [(start, torch.linalg.eigh(B)) for start, B in _output_hessians(objective, kernel.rows)]
    highest = max(float(b.abs().max()) for _, (b, _) in blocks)
    lowest = min(float(b.min()) for _, (b, _) in blocks)
    if lowest < -100.0 * rounding(kernel) * highest:
        return _indefinite(K, [(start, (Q * b.unsqueeze(1)) @ Q.transpose(1, 2)) for start, (b, Q) in blocks])
    roots = [(start, Q * b.clamp(min=0.0).sqrt().unsqueeze(1)) for start, (b, Q) in blocks]
    K = _times(roots, K)  # C^T K C with B = C C^T
    return torch.linalg.eigvalsh(_times(roots, K.T))


def _indefinite(K: Tensor, blocks: list[tuple[int, Tensor]]) -> Tensor:
    """Eigenvalues of B K as those of K^(1/2) B K^(1/2): the loss is not convex in its outputs."""
    values, vectors = torch.linalg.eigh(K)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    return torch.linalg.eigvalsh(root @ _times(blocks, root))


def _times(blocks: list[tuple[int, Tensor]], M: Tensor) -> Tensor:
    """C^T M for a block-diagonal C: (first row, `(blocks, width, width)`)."""
    product = torch.zeros_like(M)
    for start, C in blocks:
        rows = slice(start, start + C.shape[0] * C.shape[1])
        product[rows] = (C.transpose(1, 2) @ M[rows].reshape(C.shape[0], C.shape[1], -1)).reshape(-1, M.shape[1])
    return product


def _output_hessians(objective: Objective, rows: dict[int, Rows]) -> Iterator[tuple[int, Tensor]]:
    """B as (first row, `(blocks, width, width)` float64): a block per sample where the loss is a sum over samples."""
    with objective.measuring():
        for batch, outputs, bend in _curvatures(objective, rows):
            kept = rows[batch.index].kept
            B = _blocks(outputs, bend, len(outputs))
            if isinstance(kept, Tensor) or not _complete(B, outputs, bend):
                B = _blocks(outputs, bend, 1)
            B = B[:, kept][:, :, kept]  # where there is no target, B is zero
            yield rows[batch.index].start, B


def _blocks(outputs: Tensor, bend: Curvature, count: int) -> Tensor:
    """The diagonal blocks of B, of equal widths: `(count, width, width)`."""
    width = outputs.numel() // count
    units = torch.eye(width, dtype=outputs.dtype, device=outputs.device).unsqueeze(1).expand(-1, count, -1)
    B = bend(units.reshape(width, *outputs.shape)).reshape(width, count, width).permute(1, 0, 2).double()
    return 0.5 * (B + B.transpose(1, 2))


def _complete(B: Tensor, outputs: Tensor, bend: Curvature) -> bool:
    """Whether the blocks are all of B."""
    W = cotangents(outputs, len(outputs))
    found = (B @ W.double().reshape(len(B), -1, 1)).reshape(outputs.shape)
    return close(found, bend(W.unsqueeze(0))[0].double(), outputs.dtype)


def _curvatures(objective: Objective, rows: dict[int, Rows]) -> Iterator[tuple[Batch, Tensor, Curvature]]:
    """Each batch with its outputs and with B, weighted as the batch is in f."""
    total = sum(own.weight for own in rows.values())
    for batch, own in batches_with_rows(objective, rows):
        e = objective.evaluate(batch)
        outputs = e.rows.detach()
        bend = loss_hessian(replace(e, outputs=outputs))
        yield batch, outputs, partial(_weighted, bend, objective.normalise(own.weight, total))


def _weighted(bend: Curvature, weight: float, U: Tensor) -> Tensor:
    return weight * bend(U)


# -- J^T J -----------------------------------------------------------------------------------------------------------


def _primal(objective: Objective, kernel: TangentKernel, loss_hessian: bool, free: int) -> Tensor:
    """Eigenvalues of (1/N) J^T J or J^T B J, `(n,)`."""
    G = torch.zeros(objective.size, objective.size, dtype=torch.float64, device=objective.device)
    if not loss_hessian:
        with objective.measuring():
            for batch, own in batches_with_rows(objective, kernel.rows):
                places = own.places(G.device)
                for first, piece in jacobian(objective, batch, free // 4):
                    J = piece[places[first : first + len(piece)] >= 0].double()
                    G.addmm_(J.T, J)
        return torch.linalg.eigvalsh(G.div_(kernel.samples))
    widest = max(own.shape.numel() for own in kernel.rows.values())
    if 4 * widest * objective.size * 8 > free:
        return torch.linalg.eigvalsh(GaussNewton(objective).to_dense().double())
    with objective.measuring():
        for batch, outputs, bend in _curvatures(objective, kernel.rows):
            J = torch.cat([piece for _, piece in jacobian(objective, batch, free // 4)])
            bent = bend(J.T.to(outputs.dtype).reshape(-1, *outputs.shape)).reshape(objective.size, -1)
            G.addmm_(bent.double(), J.double())
    return torch.linalg.eigvalsh(0.5 * (G + G.T))


# -- beyond the budget -----------------------------------------------------------------------------------------------


def _bound(objective: Objective, kernel: TangentKernel, loss_hessian: bool, threshold: float | None) -> ConditionNumber:
    A: LinearOperator = kernel if kernel.shape[0] <= objective.size else _OuterProduct(objective, kernel.samples)
    if loss_hessian:
        A = GaussNewton(objective)
    try:
        return _beyond(A, min(kernel.shape[0], objective.size), threshold)
    finally:
        A.release()


def _beyond(A: LinearOperator, size: int, threshold: float | None) -> ConditionNumber:
    if not A.positive_semidefinite:
        raise ValueError(
            f"the Gram matrix of {size} rows does not fit the budget, and beyond it "
            "Lanczos says nothing about a loss that may not be convex in its outputs: pass loss_hessian=False"
        )
    return lower_bound(A, threshold)


class _OuterProduct(JacobianOperator):
    """(1/N) J^T J on outputs with a target."""

    def __init__(self, objective: Objective, samples: int) -> None:
        super().__init__(objective)
        self._samples = samples

    @override
    def _graph(self, e: Evaluation) -> JacobianGraph:
        curvature = self._curvature(e)  # on all ranks of a sharded model, and of no weight but 0
        return JacobianGraph(self.objective, e, curvature if e.weight else nothing)

    def _curvature(self, e: Evaluation) -> Curvature:
        targets = with_target(e)
        return lambda U: U if targets is None else U * targets

    @override
    def _product(self, V: Tensor) -> Tensor:
        total, factor, _ = self.objective.summed(lambda: self._own_sum(V), lambda: torch.zeros_like(V), rows=True)
        return total * (factor / self._samples)

    @override
    def _accumulate(self, parts: Iterator[tuple[Tensor, float]], V: Tensor) -> Sum:
        return sum((products for products, _ in parts), torch.zeros_like(V)), 1.0, 1.0
