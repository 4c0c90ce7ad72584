"""Many paths at once: an SDE by Euler-Maruyama, or the solver that it models; statistics over paths at chosen times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.randomness import generator_and_seed
from solvers.base import check
from solvers.diffusion.noise import normals
from solvers.diffusion.problems import Problem
from solvers.diffusion.sde import SDE

Statistic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Summary:
    """One statistic over paths at each recorded time, in float64; the trailing dimensions are the statistic's.

    Attributes:
        mean, variance: `(T, ...)`; the variance is that of a path, unbiased.
        mean_stderr, variance_stderr: their standard errors.
        low, high: the quantiles at 5 and 95 percent: the band of the paths.
    """

    mean: Tensor
    mean_stderr: Tensor
    variance: Tensor
    variance_stderr: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Paths:
    """What was recorded of many paths.

    Attributes:
        times: `(T,)`.
        statistics: by name; always "loss", "gradient_norm", "x" `(T, n)` and "square" (x_i^2).
        final: the state at the end, `(parts, paths, n)`.
        trajectory: `(T, paths, n)` where it was asked for, else None.
        seed: of the generator.
    """

    times: Tensor
    statistics: dict[str, Summary]
    final: Tensor
    trajectory: Tensor | None
    seed: int

    def covariance(self) -> tuple[Tensor, Tensor]:
        """The covariance of the points at the end, `(n, n)`, and the standard error of each entry."""
        return covariance(self.final[0])


def integrate(
    sde: SDE,
    x0: Tensor,
    dt: float,
    steps: int,
    paths: int,
    *,
    generator: torch.Generator | None = None,
    every: int = 1,
    statistics: Mapping[str, Statistic] | None = None,
    trajectory: bool = False,
    noise: float = 1.0,
    start: tuple[Tensor, float] | None = None,
) -> Paths:
    """Paths of an SDE by Euler-Maruyama, `steps` steps of length `dt`; weakly of first order in dt.

    dt = eta is one step for each of the solver's; dt << eta is the SDE itself. With Gaussian noise SGD's SDE at
    dt = eta is the solver, step by step: agreement there says nothing.

    Args:
        sde: drift, diffusion and what to start from.
        x0: `(n,)`, or `(paths, n)`.
        dt: length of a step, > 0.
        steps: >= 1.
        paths: >= 2.
        generator: for the Brownian motion; its device is where the numbers are drawn.
        every: record each so many steps, and at the start.
        statistics: more of them, by name: function of X `(paths, n)` -> `(paths, ...)`.
        trajectory: keep the points of all paths at the recorded times.
        noise: multiplies the diffusion's covariance. 0 and 2 are controls that a comparison has to refuse.
        start: a state `(parts, paths, n)` and its time, in place of what the SDE starts with: `discrete(...).final`
            lets it go on from the solver's own paths. x0 then says nothing.

    Raises:
        ValueError: a setting is not possible, or the shape of x0 does not fit.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Quadratic, integrate
        >>> sde = SGD(Quadratic(torch.tensor([1.0]), torch.tensor([1.0])), eta=0.1)
        >>> rng = torch.Generator().manual_seed(0)
        >>> paths = integrate(sde, torch.tensor([1.0]), dt=0.05, steps=100, paths=2000, generator=rng, every=50)
        >>> [round(t, 2) for t in paths.times.tolist()]
        [0.0, 2.5, 5.0]
        >>> bool((paths.covariance()[0] - 0.05).abs() < 0.01)  # eta Sigma / (2 H)
        True
    """
    check(dt=(dt, 0 < dt < math.inf), noise=(noise, 0 <= noise < math.inf))
    run = _Run(sde.problem, x0, steps, paths, generator, every, statistics, trajectory)
    Y, begin = sde.start(run.X, run.generator) if start is None else run.given(sde, start)

    def move(Y: Tensor, step: int) -> Tensor:
        terms = sde.terms(Y, begin + step * dt)
        xi = normals((paths, sde.width), run.generator).to(Y)
        return sde.repair(Y + dt * terms.drift + math.sqrt(noise * dt) * terms.diffuse(xi))

    return run.record(Y, begin, dt, move)


def discrete(
    sde: SDE,
    x0: Tensor,
    steps: int,
    paths: int,
    *,
    generator: torch.Generator | None = None,
    every: int = 1,
    statistics: Mapping[str, Statistic] | None = None,
    trajectory: bool = False,
    start: tuple[Tensor, float] | None = None,
) -> Paths:
    """Paths of the solver that `sde` models, each with noise or batches of its own; time runs in steps of eta.

    Arguments and errors as `integrate`.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Quadratic, discrete
        >>> sde = SGD(Quadratic(torch.tensor([1.0]), torch.tensor([1.0])), eta=0.1)
        >>> rng = torch.Generator().manual_seed(0)
        >>> paths = discrete(sde, torch.tensor([1.0]), steps=50, paths=2000, generator=rng, every=25)
        >>> [round(t, 2) for t in paths.times.tolist()]
        [0.0, 2.5, 5.0]
        >>> bool((paths.statistics["x"].mean[-1] - 0.9**50).abs() < 0.05)
        True
    """
    run = _Run(sde.problem, x0, steps, paths, generator, every, statistics, trajectory)

    Y, begin = (sde.begin(run.X), 0.0) if start is None else run.given(sde, start)
    made = round(begin / sde.eta)

    def move(Y: Tensor, step: int) -> Tensor:
        draws = sde.problem.sample(paths, run.generator)
        return sde.update(Y, made + step, lambda at: sde.problem.stochastic(at, draws))

    return run.record(Y, begin, sde.eta, move)


def covariance(X: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance `(n, n)` of points `(paths, n)`, and the standard error of each entry.

    Example:
        >>> import torch
        >>> from solvers.diffusion import covariance
        >>> X = torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
        >>> C, stderr = covariance(X)
        >>> C.tolist()
        [[4.0, 8.0], [8.0, 16.0]]
    """
    count, centred = len(X), X - X.mean(0)
    mean = centred.T @ centred / count
    squares = centred.square().T @ centred.square() / count
    return mean * count / (count - 1), ((squares - mean.square()).clamp_min(0) / count).sqrt()


def summary(values: Tensor) -> Summary:
    """Of one statistic at one time, `(paths, ...)`."""
    count = len(values)
    mean, variance = values.mean(0), values.var(0)
    fourth = (values - mean).pow(4).mean(0)
    spread = ((fourth - variance.square()).clamp_min(0) / count).sqrt()
    ordered = values.sort(0).values
    return Summary(
        mean, (variance / count).sqrt(), variance, spread, _quantile(ordered, 0.05), _quantile(ordered, 0.95)
    )


def _quantile(ordered: Tensor, q: float) -> Tensor:
    """By linear interpolation; `torch.quantile` refuses more than 2^24 numbers."""
    place = q * (len(ordered) - 1)
    i = min(int(place), len(ordered) - 2)
    return torch.lerp(ordered[i], ordered[i + 1], place - i)


class _Run:
    """Many paths from x0, of which statistics are kept, not the points unless they are asked for."""

    def __init__(
        self,
        problem: Problem,
        x0: Tensor,
        steps: int,
        paths: int,
        generator: torch.Generator | None,
        every: int,
        statistics: Mapping[str, Statistic] | None,
        trajectory: bool,
    ) -> None:
        check(steps=(steps, steps >= 1), paths=(paths, paths >= 2), every=(every, every >= 1))
        X = torch.as_tensor(x0, dtype=torch.float64)
        if X.shape not in ((problem.n,), (paths, problem.n)):
            raise ValueError(f"x0 has shape {tuple(X.shape)}: it must be ({problem.n},) or ({paths}, {problem.n})")
        self.X, self.steps, self.every, self.trajectory = X.expand(paths, -1).clone(), steps, every, trajectory
        self.generator, self.seed = generator_and_seed(generator)
        self.statistics: dict[str, Statistic] = {
            "loss": problem.loss,
            "gradient_norm": lambda X: torch.linalg.vector_norm(problem.gradient(X), dim=-1),
            "x": lambda X: X,
            "square": torch.square,
            **(statistics or {}),
        }

    def given(self, sde: SDE, start: tuple[Tensor, float]) -> tuple[Tensor, float]:
        """A state to go on from, and its time."""
        Y, time = start
        shape = (len(sde.parts), *self.X.shape)
        if Y.shape != shape:
            raise ValueError(f"the state to start from has shape {tuple(Y.shape)}: it must be {shape}")
        check(time=(time, 0 <= time < math.inf))
        return Y.to(torch.float64), time

    def record(self, Y: Tensor, begin: float, dt: float, move: Callable[[Tensor, int], Tensor]) -> Paths:
        """The paths of `move(state, step)` from the state Y at time `begin`, each step of length `dt`."""
        times: list[float] = []
        kept: list[Tensor] = []
        rows: dict[str, list[Summary]] = {name: [] for name in self.statistics}
        for step in range(self.steps + 1):
            if step:
                Y = move(Y, step - 1)
            if step % self.every == 0:
                times.append(begin + step * dt)
                for name, statistic in self.statistics.items():
                    rows[name].append(summary(statistic(Y[0])))
                if self.trajectory:
                    kept.append(Y[0].clone())
        stacked = {
            name: Summary(*map(torch.stack, zip(*(vars(row).values() for row in found), strict=True)))
            for name, found in rows.items()
        }
        when = torch.tensor(times, dtype=torch.float64)
        return Paths(when, stacked, Y, torch.stack(kept) if kept else None, self.seed)
