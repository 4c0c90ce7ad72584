"""SAM sharpness: how much the loss rises at the worst point nearby, as one ascent step finds it.

f(theta + rho g / |g|) - f(theta) (Foret et al., arXiv 2010.01412, equation 2). The adaptive form measures the
neighbourhood in units of the parameters' own sizes, |T^-1 delta| <= rho with T = |theta| elementwise, which a rescaling
of the layers leaves as it is; its ascent step is rho T^2 g / |T g| (Kwon et al., arXiv 2102.11600).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective.objective import Objective


@dataclass(frozen=True)
class SAMSharpness:
    """The rise of the loss within a ball.

    Attributes:
        value: f at the highest point found minus f; a lower bound on the rise over the ball. nan for a zero gradient.
        error: rounding of that difference, about one standard error.
        rho: radius of the ball.
        loss: f at the parameters.
        norm: |gradient|.
        first_order: rho |g| (adaptive: rho |T g|), what the slope alone would give.
        evaluations, gradients: passes made, those given not counted.
    """

    value: float
    error: float
    rho: float
    loss: float
    norm: float
    first_order: float
    evaluations: int
    gradients: int


def sam_sharpness(
    objective: Objective,
    rho: float = 0.05,
    *,
    steps: int = 1,
    adaptive: bool = False,
    gradient: Tensor | None = None,
    loss: float | None = None,
) -> SAMSharpness:
    """The rise of the loss after normalised ascent within a ball of radius rho.

    Args:
        rho: radius, in parameters (adaptive: relative to them).
        steps: 1 is SAM's own step. More repeat it from where it led, each of length rho and brought back to the ball,
            and keep the highest loss: `steps` gradients and forward passes.
        adaptive: the scale-invariant ball.
        gradient, loss: `(n,)` and f at the parameters where they are known.

    Raises:
        ValueError: rho or steps that is not positive, a gradient that is misshapen.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import sam_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.ones(1)):  # f = w^2
        ...     print(round(sam_sharpness(f, rho=0.1).value, 4))
        0.21
    """
    if not (rho > 0 and math.isfinite(rho)) or steps < 1:
        raise ValueError(f"rho and steps must be positive, not {rho} and {steps}")
    objective.only_whole("SAM sharpness")
    evaluations, gradients = int(loss is None), int(gradient is None)
    loss = objective.value() if loss is None else loss
    g = (
        torch.as_tensor(objective.gradient() if gradient is None else gradient)
        .detach()
        .to(device=objective.device, dtype=objective.dtype)
    )
    if g.shape != (objective.size,):
        raise ValueError(f"gradient must have shape ({objective.size},), not {tuple(g.shape)}")
    theta = objective.theta()
    T: Tensor | float = theta.abs() if adaptive else 1.0
    norm = _norm(g)
    slope = _norm(T * g)
    if slope == 0.0:
        return SAMSharpness(math.nan, math.nan, rho, loss, norm, 0.0, evaluations, gradients)
    u = torch.zeros_like(theta)  # the displacement in the ball's own units, T u in parameters
    highest = -math.inf
    for step in range(steps):
        scaled = T * g
        length = _norm(scaled)
        if length == 0.0:
            break
        u = u + (rho / length) * scaled
        u = u * min(1.0, rho / _norm(u))
        with objective.at(theta + T * u):
            highest = max(highest, value) if not math.isnan(value := objective.value()) else math.inf
            if step + 1 < steps:
                g = objective.gradient()
                gradients += 1
        evaluations += 1
    error = objective.rounding * (abs(highest) + abs(loss))
    return SAMSharpness(highest - loss, error, rho, loss, norm, rho * slope, evaluations, gradients)


def _norm(v: Tensor) -> float:
    return float(torch.linalg.vector_norm(v, dtype=torch.float64))
