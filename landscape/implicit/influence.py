"""Influence functions (Koh and Liang, arXiv 1703.04730): what a test loss would be without a training sample.

For theta the minimiser of f + damping / 2 ||theta||^2, f = sum_i (c_i / C) l_i, taking sample i out of the sum (the
divisor C and the regulariser stay) moves the minimiser by (c_i / C) (H + damping I)^-1 g_i to first order, and a loss
with gradient g_t there by

    (c_i / C) g_t^T (H + damping I)^-1 g_i,

which is -c_i / C times their I_up,loss (equation 2). It is positive where the sample helps: without it the loss is
larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from landscape.implicit.inverse import Inverse, Matrix, indefinite_note, inverted, matrix_of
from landscape.implicit.samples import gradients, products, require_alone, singles
from landscape.objective.objective import Objective
from landscape.objective.same import same_parameters
from landscape.operators.linear import LinearOperator, error_floor
from landscape.spectra import Callback
from landscape.spectra.carried import Measured

# Random vectors that the lengths of gradients are estimated with, without forming one; and what makes of the estimate
# an upper bound in 95 % of samples, the root of 4 over the 0.05 quantile of chi-squared with 4 degrees of freedom.
_DRAWN, _UPPER = 4, 2.372
_AT_ONCE = 32  # test samples


@dataclass(frozen=True)
class Influence(Measured):
    """What the removal of training samples would do to test losses.

    Attributes:
        scores: `(tests, train)` float64 on the host, or `(tests, groups)`: the predicted change of each test loss when
            the sample, or the group, is taken out of the training sum. Positive: it helps.
        errors: as `scores`: what the solves and rounding may have done to them (a bound, in 95 % of samples, where the
            matrix is positive semi-definite by construction and damping > 0; else an estimate). That the formula is of
            first order is not in it: for a share c_i / C of the data the rest is about as small beside the score.
        weights: `(train,)` c_i / C, the share of each sample; -scores / weights is the paper's I_up,loss.
        residuals: `(tests,)`, ||(A + damping) x - g_t|| / ||g_t||; 0 for an inverse that is exact.
        converged: all residuals are within tol.
        matvecs: products made.
        gradient_norm: ||grad f + damping theta||: 0 at the minimum that the formula asks for.
        curvature: the least Rayleigh quotient met in the solves; None where there was none.
        damping: as given.
    """

    scores: Tensor = field(repr=False)
    errors: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    residuals: Tensor = field(repr=False)
    converged: bool
    matvecs: int
    gradient_norm: float
    curvature: float | None
    damping: float

    def __str__(self) -> str:
        tests, train = self.scores.shape
        state = "" if self.converged else ", not converged"
        error = float(self.errors.norm() / self.scores.norm().clamp(min=1e-300))
        parts = [
            f"{tests} x {train} scores, error {error:.1g} of them ({self.matvecs} products{state})",
            f"||grad f + damping theta|| = {self.gradient_norm:.2g}",
        ]
        return "; ".join([*parts, *indefinite_note(self.curvature, self.damping), *self._remarks()])


def influence(
    objective: Objective,
    test: Any,
    train: Any = None,
    *,
    operator: Matrix = "hessian",
    damping: float = 0.0,
    per: Literal["sample", "all"] = "sample",
    groups: Tensor | None = None,
    tol: float = 1e-5,
    max_matvecs: int | None = None,
    preconditioner: LinearOperator | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Influence:
    """What each test loss would change by if a training sample, or a group of them, were not in the training data.

    One solve for each test sample; then one pass over the training data for up to 32 of them, as memory allows.

    Args:
        objective: f, what the parameters were trained on, with its model at a minimum of f + damping / 2 ||theta||^2.
        test: data, or an `Objective` on the same parameters (another loss, a margin). Each sample is a row.
        train: the samples that are scored, data or an `Objective`; None for those of f. Others count as if they were
            among the samples of f.
        operator: "hessian", "gauss-newton" (which is the Hessian's semi-definite part, away from a minimum too) or an
            operator of the same size; `KFAC` and `EKFAC` are inverted exactly, without products.
        damping: added to the diagonal: the weight decay (of loss + decay / 2 ||theta||^2) that f does not contain, or
            what makes the matrix positive definite.
        per: "all" takes the whole test loss as one row.
        groups: `(train,)` integers: scores of samples with the same number are added, columns are groups 0, 1, ...; one
            of -1 belongs to none. Removal of a group to first order.
        tol, max_matvecs, preconditioner, callback: of the solves, as for `landscape.spectra.solve`.
        generator: for four random vectors that the errors need; None takes a fixed seed.

    Samples count by their loss terms: c_i is how many terms sample i has in f (tokens that are not ignored, a total
    class weight), C their sum; for reduction="sum" C is 1. A sample without any has the score 0. A penalty of the
    parameters in the loss stays, like the damping, where the rest of it is a function of the outputs.

    Raises:
        TypeError: samples that cannot be told apart (batch statistics, losses that couple samples), several processes.
        ValueError: other parameters in `test` or `train`, groups of another length, an unknown operator.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.implicit import influence
        >>> model = torch.nn.Linear(1, 1, bias=False)  # the mean of the targets 1, 2 and 6, as x is 1
        >>> _ = torch.nn.init.constant_(model.weight, 3.0)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(3, 1), torch.tensor([[1.0], [2.0], [6.0]])))
        >>> found = influence(f, (torch.ones(1, 1), torch.tensor([[4.0]])))  # without 6 the mean is further from 4
        >>> found.scores.round(decimals=2).tolist()
        [[-1.33, -0.67, 2.0]]
    """
    if per not in ("sample", "all"):
        raise ValueError(f'per is "sample" or "all", not {per!r}')
    tests = test if isinstance(test, Objective) else objective.on(test)
    scored = objective if train is None else train if isinstance(train, Objective) else objective.on(train)
    for other in (objective, tests, scored):
        require_alone(other)
        same_parameters(objective, other)
    A = matrix_of(objective, operator)
    decayed = objective.gradient() + damping * objective.theta()
    drawn = A.random(_DRAWN, "normal", generator or torch.Generator().manual_seed(0))
    solved, parts = [], []
    try:
        for rows in _rows(tests, per, A):
            found = inverted(A, rows, damping, tol, max_matvecs, preconditioner, callback)
            A.release()  # what the sweep needs is of other graphs
            solved.append(found)
            parts.append(_swept(A, objective, scored, found, drawn))
    finally:
        A.release()
    scores, errors = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    weights = parts[0][2]
    if groups is not None:
        scores, errors = (_grouped(values, groups) for values in (scores, errors))
    curvatures = [one.curvature for one in solved if one.curvature is not None]
    return Influence(
        scores=scores,
        errors=errors,
        weights=weights,
        residuals=torch.cat([one.residuals for one in solved]),
        converged=all(one.converged for one in solved),
        matvecs=sum(one.matvecs for one in solved),
        gradient_norm=float(torch.linalg.vector_norm(decayed, dtype=torch.float64)),
        curvature=min(curvatures, default=None),
        damping=damping,
        checked=A.checked,
        operator_noise=A.noise,
    )


def _rows(tests: Objective, per: str, A: LinearOperator) -> Iterator[Tensor]:
    """Gradients of the test losses, `(n, k)` at a time: a solve keeps about sixteen vectors for each."""
    if per == "all":
        yield tests.gradient().unsqueeze(-1)
        return
    every = singles(tests)
    if not every:
        raise ValueError("there is no test sample")
    step = max(1, min(_AT_ONCE, A.memory // (16 * A.space.column_bytes)))
    for first in range(0, len(every), step):
        yield gradients(tests, every[first : first + step])


def _swept(
    A: LinearOperator, objective: Objective, scored: Objective, solved: Inverse, drawn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and errors `(tests, train)`, and shares `(train,)`, from one pass over the training data."""
    X, error = solved.x, solved.error
    error = error + error_floor(A) * A.inner(X, X).diagonal().sqrt()
    found = list(products(scored, torch.cat([X, drawn], dim=-1)))
    weights = torch.cat([c for c, _ in found])
    divisor = _divisor(objective, weights, scored)
    along = torch.cat([values for _, values in found], dim=1) / divisor
    lengths = _UPPER * along[-_DRAWN:].square().mean(dim=0).sqrt()
    errors = torch.where(lengths > 0, torch.outer(error, lengths), 0.0)  # of a sample without terms nothing is unknown
    return along[:-_DRAWN], errors, weights / divisor


def _divisor(objective: Objective, weights: Tensor, scored: Objective) -> float:
    """C."""
    if objective.criterion.reduction == "sum":
        return 1.0
    if scored is objective:
        return float(weights.sum())
    with objective.measuring(derivative=False), torch.no_grad():
        return sum(float(e.weight) for e in objective.evaluations())


def _grouped(values: Tensor, groups: Tensor) -> Tensor:
    groups = torch.as_tensor(groups).cpu()
    if groups.shape != values.shape[1:] or groups.is_floating_point() or int(groups.min()) < -1:
        raise ValueError(
            f"groups are {values.shape[1]} whole numbers from 0, -1 for none, one for each training sample, not "
            f"{tuple(groups.shape)} of {groups.dtype}"
        )
    kept = groups >= 0
    total = values.new_zeros(len(values), int(groups.max()) + 1)
    return total.index_add(1, groups[kept].long(), values[:, kept])
