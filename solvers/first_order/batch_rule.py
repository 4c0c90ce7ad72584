"""How large batches, steps and momentum of stochastic conditional gradients are to be for a budget (arXiv 2603.21191).

For `Scion` with constrained=True: b is its lr, a its momentum, eta its scale. The budget T is in units of data, samples
or tokens; a batch has B of them (the paper's B S), so there are K = T / B steps. Of the loss f

    ||grad f(x) - grad f(y)||_* <= L ||x - y||        ||x||_* <= rho ||x||_2        ||grad f(x)||_* >= mu (f(x) - f*)

and sigma^2 is the variance of the gradient of one unit, E ||g - grad f||_2^2, so that a batch's is sigma^2 / B. The
error that can be reached is the largest of three terms (3): one that larger batches lower, one that does not hang on
them and one that they raise. The rule (4) is where the last two meet, B = (T mu rho sigma / L)^(2/3); with it b falls
like 1 / K and a stays. The constants are those of a proof and far too large: ratios are what is meant to be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from landscape.sharpness import rule_batch
from solvers.base import check

DECAY = 0.28
"""The share of the budget over which the paper's step sizes fall to 0."""


@dataclass(frozen=True)
class Constants:
    """What the rule knows of a loss, all > 0: see the module. `probes.BatchRule` measures them; radii in any unit."""

    L: float
    mu: float
    rho: float
    sigma: float

    def __post_init__(self) -> None:
        check(**{name: (value, 0 < value < math.inf) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Settings:
    """How a run is to go.

    Attributes:
        budget: T, units of data that are seen.
        batch: B, units in a batch, a real number.
        lr: b, of `Scion`.
        momentum: a, of `Scion`.
    """

    budget: float
    batch: float
    lr: float
    momentum: float = 0.1

    def __post_init__(self) -> None:
        possible = {"budget": self.budget > 0, "batch": 0 < self.batch <= self.budget}
        possible |= {"lr": 0 <= self.lr <= 1, "momentum": 0 < self.momentum <= 1}
        check(**{name: (getattr(self, name), ok) for name, ok in possible.items()})

    @property
    def steps(self) -> int:
        """K."""
        return round(self.budget / self.batch)


def best_batch(budget: float, constants: Constants) -> float:
    """The batch of rule (4), without its constant: right up to a factor that the loss and the norm decide.

    Example:
        >>> from solvers import batch_rule
        >>> small = batch_rule.best_batch(1e6, batch_rule.Constants(L=10.0, mu=1.0, rho=50.0, sigma=2.0))
        >>> large = batch_rule.best_batch(8e6, batch_rule.Constants(L=10.0, mu=1.0, rho=50.0, sigma=2.0))
        >>> round(small), round(large / small, 3)  # eight times the data, four times the batch
        (46416, 4.0)
    """
    check(budget=(budget, 0 < budget < math.inf))
    return rule_batch(budget, **vars(constants))


def reachable(budget: float, batch: float, constants: Constants) -> tuple[float, float, float]:
    """The three terms of (3), without constants and logarithms: the error is of the order of the largest.

    In this order: what falls with the batch, what does not depend on it, what rises with it.
    """
    check(budget=(budget, 0 < budget < math.inf), batch=(batch, 0 < batch <= budget))
    c = constants
    noise = c.rho * c.sigma / (c.mu * (budget**2 * batch) ** (1 / 6))
    level = (c.L * (c.rho * c.sigma) ** 2 / (c.mu**4 * budget)) ** (1 / 3)
    return noise, level, c.L * batch / (c.mu**2 * budget)


def transfer(
    settings: Settings, budget: float, before: Constants | None = None, after: Constants | None = None
) -> Settings:
    """Batch and step size for another budget, and perhaps another model, from settings that were good: (7) and (8).

    Args:
        settings: that were tuned; the radii and a stay as they are.
        budget: the other one.
        before: the constants where they were tuned; with `after`, those of the other model. None: they are alike.
        after: see there. sigma is taken to be the same (Remark 5.1), as the paper assumes.

    Raises:
        ValueError: one of the two is missing, or the step size comes out above 1.

    Example:
        >>> from solvers import batch_rule
        >>> tuned = batch_rule.Settings(budget=15_000, batch=32, lr=0.01)
        >>> longer = batch_rule.transfer(tuned, 8 * 15_000)
        >>> round(longer.batch, 3), round(longer.lr, 5), longer.steps
        (128.0, 0.005, 938)
    """
    if (before is None) != (after is None):
        raise ValueError("before and after come together: constants of both models, or of none")
    factor = budget / settings.budget
    if before is not None and after is not None:
        factor *= (after.mu / before.mu) * (after.rho / before.rho) / (after.L / before.L)
    batch = settings.batch * factor ** (2 / 3)
    lr = settings.lr * (batch / settings.batch) * (settings.budget / budget)
    return replace(settings, budget=budget, batch=batch, lr=lr)


def root_rule(settings: Settings, budget: float) -> Settings:
    """The paper's baseline (16), (17), for an excess risk like 1 / sqrt(T): batches like the root of the budget."""
    root = math.sqrt(budget / settings.budget)
    return replace(settings, budget=budget, batch=settings.batch * root, lr=settings.lr / root)


def restarted(settings: Settings, budget: float) -> list[Settings]:
    """Two stages for data that arrive later (Sec. 5.3): what was tuned up to its budget, then `transfer` to the whole.

    The second stage's budget is that of the units that are left; momentum goes on as it is.
    """
    check(budget=(budget, settings.budget < budget < math.inf))
    second = transfer(settings, budget)
    return [settings, replace(second, budget=budget - settings.budget)]


def constant_then_linear(budget: float, decay: float = DECAY) -> Callable[[float], float]:
    """The factor of the step size after so many units of data: 1, then linear to 0 over the last share of the budget.

    Example:
        >>> from solvers import batch_rule
        >>> factor = batch_rule.constant_then_linear(1000, decay=0.5)
        >>> factor(0), factor(500), factor(750), factor(1000)
        (1.0, 1.0, 0.5, 0.0)
    """
    check(budget=(budget, 0 < budget < math.inf), decay=(decay, 0 < decay <= 1))
    return lambda seen: min(1.0, max(0.0, (1 - seen / budget) / decay))


def mean_error(settings: Settings, constants: Constants, radius: float, step: int) -> float:
    """What E ||m - grad f||_* is at most at that step from 0 (Lemma 2), m the running mean with its gradient.

    (1 - a)^k rho sigma + 2 L b radius / a + rho sigma sqrt(a), sigma here the batch's.
    """
    a, noise = settings.momentum, constants.rho * constants.sigma / math.sqrt(settings.batch)
    return (1 - a) ** step * noise + 2 * constants.L * settings.lr * radius / a + noise * math.sqrt(a)


def bound(settings: Settings, constants: Constants, radius: float, gap: float) -> float:
    """What E f(x_K) - f* is at most after K steps of any a and b = c / K on a ball of that radius: (26).

    From any start with ||x_0|| <= radius / 2, and a first running mean that is the first gradient. `gap` is
    f(x_0) - f*. inf where the proof does not contract: mu b radius > 2 e^(3 c / 2).

    Raises:
        ValueError: K < 2 c, which the proof asks for, or numbers that are not positive.
    """
    check(radius=(radius, 0 < radius < math.inf), gap=(gap, 0 <= gap < math.inf))
    k, a, b, sigma = settings.steps, settings.momentum, settings.lr, constants.sigma / math.sqrt(settings.batch)
    c = b * k
    if k < 2 * c:
        raise ValueError(f"the bound is for step sizes of at most 1/2, not {b:g}")
    L, mu, noise, h = constants.L, constants.mu, constants.rho * sigma, math.exp(1.5 * c)
    rate = 1 - mu * b * radius / (2 * h)
    if rate < 0:
        return math.inf
    smooth = 4 * L * b * radius * h / mu + 8 * L * b * radius * h / (a * mu)
    return rate**k * gap + 2 * b * radius * noise / a + 4 * noise * math.sqrt(a) * h / mu + smooth
