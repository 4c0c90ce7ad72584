"""Hypergradients by the implicit function theorem (Lorraine, Vicol, Duvenaud, arXiv 1911.02590, theorem 1).

For theta(h) the minimiser of an inner f(theta, h), the gradient of an outer F(theta(h), h) in h is

    dF/dh - (d2 f / dh dtheta) (d2 f / dtheta2)^-1 dF/dtheta :

one solve, whatever the number of hyperparameters, and one mixed derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.implicit.inverse import Matrix, indefinite_note, inverted, matrix_of
from landscape.implicit.samples import require_alone
from landscape.objective.objective import Objective
from landscape.objective.same import same_parameters
from landscape.operators.linear import LinearOperator, error_floor
from landscape.spectra import Callback
from landscape.spectra.carried import Measured

_DRAWN = 4  # random vectors that the size of the mixed derivative is estimated with


@dataclass(frozen=True)
class Hypergradient(Measured):
    """The gradient of an outer loss in hyperparameters, at the minimum of an inner one.

    Attributes:
        gradients: one for each hyperparameter, in its shape, dtype and place.
        errors: likewise: an estimate of what the solve and rounding may have done to each entry (the size of the mixed
            derivative is that of four random vectors). That theta is no minimum is not in it.
        value: F.
        residual: ||(H + damping) x - dF/dtheta|| / ||dF/dtheta||; 0 for an inverse that is exact.
        converged: the residual is within tol.
        matvecs: products made.
        gradient_norm: ||df/dtheta + damping theta||: 0 at the minimum that the theorem asks for.
        curvature: the least Rayleigh quotient met in the solve; None where there was none.
        damping: as given.
    """

    gradients: tuple[Tensor, ...]
    errors: tuple[Tensor, ...] = field(repr=False)
    value: float
    residual: float
    converged: bool
    matvecs: int
    gradient_norm: float
    curvature: float | None
    damping: float

    def __str__(self) -> str:
        state = "" if self.converged else ", not converged"
        size, error = (
            sum(float(t.double().square().sum()) for t in part) ** 0.5 for part in (self.gradients, self.errors)
        )
        count = sum(t.numel() for t in self.gradients)
        parts = [
            f"{count} entries of norm {size:.4g} +- {error:.1g} ({self.matvecs} products{state})",
            f"||df/dtheta|| = {self.gradient_norm:.2g}",
        ]
        return "; ".join([*parts, *indefinite_note(self.curvature, self.damping), *self._remarks()])


def hypergradient(
    outer: Objective,
    inner: Objective,
    hyperparameters: Tensor | Sequence[Tensor],
    *,
    operator: Matrix = "hessian",
    damping: float = 0.0,
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    preconditioner: LinearOperator | None = None,
    callback: Callback | None = None,
) -> Hypergradient:
    """d outer / d hyperparameters along the minimisers of `inner`, by one solve.

    Args:
        outer: F, an objective of the same parameters, such as the validation loss.
        inner: f, whose model is at a minimum of f + damping / 2 ||theta||^2.
        hyperparameters: tensors that require grad and that the losses are computed from: logarithms of weight decays,
            weights of samples, a temperature. They are read at every product, and left as they are.
        operator: as for `influence`.
        damping: a weight decay that f does not contain, or what makes the matrix positive definite.
        tol, max_matvecs, preconditioner, callback: of the solve, as for `landscape.spectra.solve`.

    Raises:
        ValueError: objectives of other parameters, hyperparameters without grad or that neither loss depends on.
        TypeError: objectives of several processes.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.implicit import hypergradient
        >>> model = torch.nn.Linear(1, 1, bias=False)  # w minimises (w - 2)^2 + decay w^2: w = 2 / (1 + decay)
        >>> _ = torch.nn.init.constant_(model.weight, 1.0)
        >>> decay = torch.tensor(1.0, requires_grad=True)
        >>> ridge = lambda z, y: torch.nn.functional.mse_loss(z, y) + decay * model.weight.square().sum()
        >>> x, y = torch.ones(1, 1), torch.full((1, 1), 2.0)
        >>> inner, outer = Objective(model, ridge, (x, y)), Objective(model, torch.nn.MSELoss(), (x, y))
        >>> found = hypergradient(outer, inner, decay)  # of (w - 2)^2, dw / d decay = -2 / (1 + decay)^2 = -0.5
        >>> round(float(found.gradients[0]), 4), found.converged
        (1.0, True)
    """
    given = [hyperparameters] if isinstance(hyperparameters, Tensor) else list(hyperparameters)
    if not given or not all(isinstance(h, Tensor) and h.is_leaf and h.requires_grad for h in given):
        raise ValueError("hyperparameters are tensors that require grad, leaves that the losses are computed from")
    for other in (outer, inner):
        require_alone(other)
    same_parameters(inner, outer)
    A = matrix_of(inner, operator)
    value, slope = outer.value_and_gradient()
    decayed = inner.gradient() + damping * inner.theta()
    try:
        found = inverted(A, slope.unsqueeze(-1), damping, tol, max_matvecs, preconditioner, callback)
    finally:
        A.release()
    direct, used = _direct(outer, given)
    drawn = A.random(_DRAWN, "normal", torch.Generator().manual_seed(0))
    mixed, used_inside = _mixed(inner, given, [found.x[:, 0], *drawn.T])
    missing = [i for i, both in enumerate(zip(used, used_inside, strict=True)) if not any(both)]
    if missing:
        raise ValueError(f"neither loss depends on hyperparameter {missing[0]}: it has to enter as the tensor itself")
    wrong = float(found.error[0]) + error_floor(A) * float(A.inner(found.x, found.x).sqrt())
    spread = [torch.stack([row[i] for row in mixed[1:]]).square().mean(dim=0).sqrt() for i in range(len(given))]
    return Hypergradient(
        gradients=tuple(d - m for d, m in zip(direct, mixed[0], strict=True)),
        errors=tuple(torch.where(size > 0, size * wrong, 0.0) for size in spread),
        value=value,
        residual=float(found.residuals[0]),
        converged=found.converged,
        matvecs=found.matvecs,
        gradient_norm=float(torch.linalg.vector_norm(decayed, dtype=torch.float64)),
        curvature=found.curvature,
        damping=damping,
        checked=A.checked,
        operator_noise=A.noise,
    )


def _direct(outer: Objective, given: list[Tensor]) -> tuple[list[Tensor], list[bool]]:
    """dF/dh with theta held, and on which h the loss depends."""
    sums, used, weight = [torch.zeros_like(h) for h in given], [False] * len(given), 0.0
    with outer.measuring():
        for e in outer.evaluations():
            found = torch.autograd.grad(e.loss(), given, allow_unused=True)
            _add(sums, used, found, e.weight)
            weight += e.weight
    return [outer.normalise(total, weight) for total in sums], used


def _mixed(inner: Objective, given: list[Tensor], vectors: list[Tensor]) -> tuple[list[list[Tensor]], list[bool]]:
    """d (v . df/dtheta) / dh for each of the vectors, and on which h it depends."""
    sums, used, weight = [[torch.zeros_like(h) for h in given] for _ in vectors], [False] * len(given), 0.0
    with inner.measuring():
        for e in inner.evaluations():
            leaves = inner.leaves()
            slopes = torch.autograd.grad(e.loss(), leaves, create_graph=True, allow_unused=True)
            for total, v in zip(sums, vectors, strict=True):
                pieces = zip(slopes, inner.split(v), strict=True)
                along = sum(((g * piece.to(g.dtype)).sum() for g, piece in pieces if g is not None), torch.zeros(()))
                if along.requires_grad:
                    found = torch.autograd.grad(along, given, allow_unused=True, retain_graph=True)
                    _add(total, used, found, e.weight)
            weight += e.weight
    return [[inner.normalise(part, weight) for part in total] for total in sums], used


def _add(sums: list[Tensor], used: list[bool], found: tuple[Tensor | None, ...], weight: float) -> None:
    for i, part in enumerate(found):
        if part is not None:
            sums[i] += weight * part
            used[i] = True
