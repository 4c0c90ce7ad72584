"""Critical sharpness: 2 / eta_c, with eta_c the smallest step along -direction that raises the loss.

A few forward passes in place of Hessian products (arXiv 2601.16979). On a quadratic and along the gradient g it is
g^T H g / |g|^2, along another direction d it is d^T H d / <g, d>; a step eta is past the edge when 2 / eta is below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective.objective import Objective

# The tolerance that arXiv 2601.16979 uses.
RTOL = 1 / 16
# Steps are tried within this factor of the start, both ways.
_REACH = 2.0**60
_ASCENT = "the loss rises from the first step on: a direction of ascent"
_ROUNDING = "no step that was tried lowers the loss by more than its rounding"


@dataclass(frozen=True)
class CriticalSharpness:
    """The step at which the loss rises above the present one.

    Attributes:
        value: 2 / step; 0 when no step raises the loss, inf when every one does, nan when that cannot be told.
        lower, upper: value lies between them; the loss exceeds the present one at the step 2 / lower, not at 2 / upper.
        step: eta_c, in multiples of the direction.
        loss: f at the parameters.
        evaluations: forward passes over the data, that of `loss` included unless it was given.
        gradients: gradients that were made.
        converged: upper <= (1 + rtol) lower.
        reason: why it did not converge; "" when it did.
    """

    value: float
    lower: float
    upper: float
    step: float
    loss: float
    evaluations: int
    gradients: int
    converged: bool
    reason: str = ""


def critical_sharpness(
    objective: Objective,
    direction: Tensor | None = None,
    *,
    start: float | None = None,
    rtol: float = RTOL,
    max_evaluations: int = 60,
    loss: float | None = None,
) -> CriticalSharpness:
    """2 / eta_c by exponential search from `start` and bisection (in the logarithm) to a relative width of rtol.

    The loss as a function of the step may cross its present value more than once: what is found is the first crossing
    among the steps that were tried. NaN and inf count as exceeding.

    Args:
        direction: `(n,)`, the update per unit of step: theta - eta * direction is tried. Default: the gradient.
        start: a step to begin with, such as the last eta_c: the search then widens from a factor of 1 + rtol, so that a
            crossing that has hardly moved takes three or four evaluations. Default: f / <g, g>, or 1.
        rtol: relative width of the bracket.
        max_evaluations: forward passes allowed.
        loss: f at the parameters where it is known.

    Raises:
        ValueError: rtol, start or max_evaluations that is not positive, a direction that is misshapen or not finite.
        FloatingPointError: the present loss is not finite.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import critical_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.ones(1)):  # f = w^2
        ...     found = critical_sharpness(f)
        >>> found.converged, found.lower <= 2.0 <= found.upper
        (True, True)
    """
    if not rtol > 0 or (start is not None and not 0 < start < math.inf) or max_evaluations < 1:
        raise ValueError(f"rtol, start and max_evaluations must be positive, not {rtol}, {start}, {max_evaluations}")
    objective.only_whole("critical sharpness")
    gradients = int(direction is None)
    direction = (
        torch.as_tensor(objective.gradient() if direction is None else direction)
        .detach()
        .to(device=objective.device, dtype=objective.dtype)
    )
    if direction.shape != (objective.size,) or not bool(torch.isfinite(direction).all()):
        raise ValueError(f"direction must be a finite vector of shape ({objective.size},)")
    search = _Search(objective, direction, rtol, max_evaluations, loss)
    square = float(torch.linalg.vector_norm(direction, dtype=torch.float64)) ** 2
    if square == 0.0:
        return search.result(gradients, "the direction is zero")
    if start is None:
        search.bracket(abs(search.base) / square or 1.0, 2.0)
    else:
        search.bracket(start, 1.0 + rtol)
    search.bisect()
    if search.descends or not math.isfinite(search.above):
        return search.result(gradients)
    # only the slope tells ascent from a decrease that drowns in rounding
    slope = float(torch.sum(objective.gradient().double() * direction.double()))
    return search.result(gradients + 1, _ASCENT if slope <= 0.0 else _ROUNDING)


class _Search:
    """The losses seen along the direction, and the bracket that they leave: (below, above)."""

    def __init__(self, objective: Objective, direction: Tensor, rtol: float, limit: int, loss: float | None) -> None:
        self.objective = objective
        self.direction = direction
        self.theta = objective.theta()
        self.width = (1.0 + rtol) * (1.0 + 1e-9)  # of the bracket, at the end
        self.limit = limit
        self.evaluations = 0 if loss is not None else 1
        self.base = objective.value() if loss is None else float(loss)
        if not math.isfinite(self.base):
            raise FloatingPointError(f"the loss at the parameters is {self.base}: there is nothing to exceed")
        # sums of losses err by a few roundings: a smaller decrease is none
        self.noise = 4 * objective.rounding * abs(self.base)
        self.below, self.above = 0.0, math.inf
        self.descends = False  # whether some step has lowered the loss by more than rounding

    def exceeds(self, step: float) -> bool:
        """Whether the loss at this step is above the present one; notes where the bracket now ends."""
        self.evaluations += 1
        with self.objective.at(self.theta - step * self.direction):
            value = self.objective.value()
        above = not value <= self.base
        if above:
            self.above = step
            if self.below >= step:  # rounding: what lay below did not exceed, what lies further below does
                self.below = 0.0
        else:
            self.below = step
            self.descends |= value < self.base - self.noise
        return above

    @property
    def spent(self) -> bool:
        return self.evaluations >= self.limit

    def bracket(self, start: float, factor: float) -> None:
        """Go up until the loss exceeds, or down until it has been seen to fall; the factors are squared each time."""
        step = start
        down = self.exceeds(step)
        while not self.spent and start / _REACH < step < start * _REACH:
            step = max(step / factor, start / _REACH) if down else min(step * factor, start * _REACH)
            factor = min(factor * factor, _REACH)
            if self.exceeds(step) != down and (self.descends or not down):
                return

    def bisect(self) -> None:
        """Halve the logarithm of above / below until it is within the tolerance."""
        while self.below and self.above > self.width * self.below and math.isfinite(self.above) and not self.spent:
            self.exceeds((self.below * self.above) ** 0.5)

    def result(self, gradients: int, reason: str = "") -> CriticalSharpness:
        """The bracket as curvatures, and what went wrong."""
        below, above = self.below, self.above
        lower, upper = 2.0 / above, 2.0 / below if below else math.inf
        if reason == _ASCENT:
            value, step = math.inf, 0.0
        elif reason:
            value, step = math.nan, math.nan
        elif not math.isfinite(above):
            value, step, reason = 0.0, math.inf, f"no step up to {below:.3g} raises the loss"
        else:
            step = (below * above) ** 0.5
            value = 2.0 / step
            if above > self.width * below:
                reason = f"the {self.limit} evaluations ran out"
        return CriticalSharpness(value, lower, upper, step, self.base, self.evaluations, gradients, not reason, reason)
