"""Relative critical sharpness: the curvature of one loss along the steps that another one makes.

An update Delta is computed from one loss, and eta_c is the least step at which the *other* loss rises, L(theta - eta
Delta) > L(theta): its value is 2 / eta_c (arXiv 2601.16979). On a quadratic it is Delta^T H Delta / <Delta, g>, with
gradient g and Hessian H of the loss that is watched. Where <Delta, g> < 0 that loss rises at once: eta_c is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.objective.same import same_parameters
from landscape.sharpness.critical import RTOL, CriticalSharpness, critical_sharpness


@dataclass(frozen=True)
class RelativeCriticalSharpness(CriticalSharpness):
    """`CriticalSharpness` of the loss that is watched, with its slope along the steps of the loss that moves.

    Attributes:
        ascent: the watched loss rises from the first step on: value is inf and step 0, and that is an answer, converged
            is True.
        slope: -<Delta, g>, by which the watched loss changes per unit of step, to first order.
        slope_error: its rounding; a slope within it has no sign, and the steps that are tried decide.
    """

    ascent: bool = False
    slope: float = math.nan
    slope_error: float = math.nan


def relative_critical_sharpness(
    *,
    moves: Objective | Tensor,
    watched: Objective,
    start: float | None = None,
    rtol: float = RTOL,
    max_evaluations: int = 60,
    known: tuple[float, Tensor] | None = None,
) -> RelativeCriticalSharpness:
    """2 / eta_c of the loss `watched` along the update of another, by the search of `critical_sharpness`.

    It takes a gradient of the watched loss, for the slope, and no forward pass where that says ascent.

    Args:
        moves: the loss whose gradient is the update, on the same parameters, or the update Delta `(n,)` itself, per
            unit of step: theta - eta * Delta is tried. An optimizer's is its step over the learning rate.
        watched: the loss that may rise.
        start, rtol, max_evaluations: as in `critical_sharpness`.
        known: value and gradient `(n,)` of the watched loss where they are known.

    Raises:
        ValueError: as `critical_sharpness`, and objectives of different parameters.
        FloatingPointError: the watched loss is not finite, or its slope.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import relative_critical_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> train = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> test = train.on((torch.ones(1, 1), torch.full((1, 1), 3.0)))
        >>> with train.at(torch.ones(1)):  # w^2 pulls down, (w - 3)^2 up
        ...     found = relative_critical_sharpness(moves=train, watched=test)
        >>> found.value, found.ascent, found.slope
        (inf, True, 8.0)
    """
    watched.only_whole("relative critical sharpness")
    if isinstance(moves, Objective):
        same_parameters(moves, watched)
    update = moves.gradient() if isinstance(moves, Objective) else torch.as_tensor(moves).detach()
    update = update.to(device=watched.device, dtype=watched.dtype)
    if update.shape != (watched.size,):
        raise ValueError(f"the update must be a vector of shape ({watched.size},), not {tuple(update.shape)}")
    loss, gradient = watched.value_and_gradient() if known is None else known
    gradients = int(isinstance(moves, Objective)) + int(known is None)
    slope, error = _slope(watched, update, gradient)
    if slope > error:
        return RelativeCriticalSharpness(
            math.inf, math.inf, math.inf, 0.0, loss, 0, gradients, True, ascent=True, slope=slope, slope_error=error
        )
    found = critical_sharpness(watched, update, start=start, rtol=rtol, max_evaluations=max_evaluations, loss=loss)
    ascent = math.isinf(found.value)  # of a slope without a sign
    answered = {"converged": True, "reason": "", "ascent": True} if ascent else {}
    counted = {"gradients": gradients + found.gradients, "slope": slope, "slope_error": error}
    return RelativeCriticalSharpness(**(vars(found) | counted | answered))


def _slope(watched: Objective, update: Tensor, gradient: Tensor) -> tuple[float, float]:
    """-<update, gradient> and a bound on its rounding: that of the gradient, which is relative to its length."""
    slope = -float(torch.sum(update.double() * gradient.double()))
    lengths = (float(torch.linalg.vector_norm(v, dtype=torch.float64)) for v in (update, gradient))
    error = 4 * watched.rounding * math.prod(lengths)
    if not math.isfinite(slope):
        raise FloatingPointError(f"the slope of the watched loss along the update is {slope}")
    return slope, error
