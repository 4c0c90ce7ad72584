"""Which coordinates a subspace method moves: how many at each step, and which.

Sizes follow the experiments of SSCN (arXiv 2406.16666). For uniform sampling without replacement
E||g - g_S||^2 = (1 - tau / n) ||g||^2, so a step that asks for ||g - g_S|| <= C ||h|| wants tau / n >= 1 -
C^2 ||h||^2 / ||g||^2, and likewise for the Hessian with the square root: the adaptive rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import check

Kind = Literal["coordinates", "blocks", "layers", "gaussian"]


@dataclass(frozen=True)
class Seen:
    """What a size may depend on.

    Attributes:
        step: steps made.
        length: of the last step that was taken; 1 before the first.
        tried: of the last trial point, taken or not; 1 before the first.
        gradient: running mean G <- 0.8 ||g_S|| + 0.2 G, the first one sqrt(n / tau) ||g_S||. The script of arXiv
            2406.16666 stops by it; ||g|| of the whole is larger.
        curvature: the same of the spectral norm of H_SS.
        size: of the last subspace.
    """

    step: int
    length: float = 1.0
    tried: float = 1.0
    gradient: float = math.nan
    curvature: float = math.nan
    size: int = 0


class Schedule(Protocol):
    """The size of the next subspace, of n coordinates; what it returns is clipped to 1 .. n."""

    def size(self, n: int, seen: Seen) -> float:
        """tau, before it is rounded down and clipped."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same size at every step.

    Example:
        >>> import torch
        >>> from solvers import SSCN, Constant
        >>> x = torch.zeros(10, requires_grad=True)
        >>> solver = SSCN([x], Constant(3))  # as SSCN([x], 3)
        >>> loss = solver.step(lambda: (x - 1).square().sum())
        >>> solver.last.size
        3
    """

    value: int

    @override
    def size(self, n: int, seen: Seen) -> float:
        return self.value


@dataclass(frozen=True)
class Exponential(Schedule):
    """tau_0 + c exp(d k).

    Example:
        >>> import torch
        >>> from solvers import SSCN, Exponential
        >>> x = torch.zeros(20, requires_grad=True)
        >>> solver, sizes = SSCN([x], Exponential(2, c=1.0, d=0.5)), []
        >>> for _ in range(5):
        ...     loss = solver.step(lambda: (x - 1).square().sum())
        ...     sizes.append(solver.last.size)
        >>> sizes
        [3, 3, 4, 6, 9]
    """

    start: int
    c: float = 0.1
    d: float = 0.01

    def size(self, n: int, seen: Seen) -> float:
        """tau at step k; n where it overflows."""
        exponent = self.d * seen.step
        return self.start + self.c * math.exp(exponent) if exponent < 700 else n


@dataclass(frozen=True)
class Linear(Schedule):
    """tau_0 + s k.

    Example:
        >>> import torch
        >>> from solvers import SSCN, Linear
        >>> x = torch.zeros(20, requires_grad=True)
        >>> solver, sizes = SSCN([x], Linear(2, slope=1.5)), []
        >>> for _ in range(5):
        ...     loss = solver.step(lambda: (x - 1).square().sum())
        ...     sizes.append(solver.last.size)
        >>> sizes
        [2, 3, 5, 6, 8]
    """

    start: int
    slope: float = 0.05

    @override
    def size(self, n: int, seen: Seen) -> float:
        return self.start + self.slope * seen.step


@dataclass(frozen=True)
class Adaptive(Schedule):
    """tau / n >= max(1 - eps_1 / ||g||^2, sqrt(1 - eps_2 / ||H||^2)), eps_1 = 1e4 c ||h||^2, eps_2 = 1e16 c ||h||^2.

    The practical constants of the paper's experiments; ||g|| and ||H|| are the running means of `Seen`. Where eps_2
    exceeds ||H||^2 the second rule asks for nothing.

    Args:
        start: the first size. None: by the rule, from the norms of the whole gradient and Hessian and ||h|| = 1.
        c: of eps_1 and eps_2; it has to fit the problem.
        smoothing: b moves the size by that share of the way to what is asked for.
        length: ||h|| is that of the last "step" that was taken or of the last "trial" point.

    `Adaptive(None, c, b, length="trial")` is the rule of the script of these experiments.

    Example:
        >>> import torch
        >>> from solvers import SSCN, Adaptive
        >>> x = torch.zeros(20, requires_grad=True)
        >>> solver, sizes = SSCN([x], Adaptive(2, c=1e-6), generator=torch.Generator().manual_seed(0)), []
        >>> for _ in range(5):
        ...     loss = solver.step(lambda: (x - 1).square().sum())
        ...     sizes.append(solver.last.size)
        >>> sizes[0], sizes[-1] > 2
        (2, True)
    """

    start: int | None
    c: float = 10.0
    smoothing: float = 1.0
    length: Literal["step", "trial"] = "step"

    def __post_init__(self) -> None:
        check(
            start=(self.start, self.start is None or self.start >= 1),
            c=(self.c, self.c > 0),
            smoothing=(self.smoothing, 0 < self.smoothing <= 1),
            length=(self.length, self.length in ("step", "trial")),
        )

    @property
    def whole(self) -> bool:
        """The first size depends on norms in the whole space, which the solver finds at its first step."""
        return self.start is None

    def size(self, n: int, seen: Seen) -> float:
        """tau at this step; `start` before anything was seen."""
        if seen.size == 0 and self.start is not None:
            return self.start
        if not seen.gradient > 0 or not seen.curvature > 0:
            return seen.size
        slack = self.c * (seen.length if self.length == "step" else seen.tried) ** 2
        first = 1.0 - 1e4 * slack / seen.gradient**2
        second = math.sqrt(max(0.0, 1.0 - 1e16 * slack / seen.curvature**2))
        wanted = max(1, int(max(first, second) * n))
        return wanted if seen.size == 0 else (1.0 - self.smoothing) * seen.size + self.smoothing * wanted


def as_schedule(subspace: int | Schedule, n: int) -> Schedule:
    """A number is a constant size. Raises `ValueError` for one below 1 or above n, `TypeError` for anything else."""
    if isinstance(subspace, bool) or not (isinstance(subspace, int) or hasattr(subspace, "size")):
        raise TypeError(f"subspace is a number of coordinates or a schedule, not {type(subspace).__name__}")
    if not isinstance(subspace, int):
        return subspace
    if subspace < 1:
        raise ValueError(f"a subspace has at least one coordinate, not {subspace}")
    if subspace > n:
        raise ValueError(f"a subspace of {subspace} coordinates does not fit into {n} parameters")
    return Constant(subspace)


def subspace_size(schedule: Schedule, n: int, seen: Seen) -> int:
    """The schedule's next size, rounded down and clipped to 1 .. n."""
    return max(1, min(n, int(schedule.size(n, seen))))


def choose(n: int, size: int, kind: Kind, sizes: list[int], generator: torch.Generator) -> Tensor:
    """Sorted indices of the coordinates, `(size,)` or fewer: uniform, a run of neighbours, or within one tensor.

    sizes: of the parameter tensors, one after the other. "blocks" takes a run of neighbours anywhere, "layers"
    coordinates of one tensor, which is drawn in proportion to its size.
    """
    if size >= n:
        return torch.arange(n)
    if kind == "blocks":
        start = int(torch.randint(0, n - size + 1, (1,), generator=generator))
        return torch.arange(start, start + size)
    if kind == "layers":
        at = int(torch.randint(0, n, (1,), generator=generator))
        ends = torch.tensor(sizes).cumsum(0)
        layer = int((ends <= at).sum())
        first, own = int(ends[layer]) - sizes[layer], sizes[layer]
        return first + torch.randperm(own, generator=generator)[: min(size, own)].sort().values
    return torch.randperm(n, generator=generator)[:size].sort().values
