"""A function of one eigenvalue, with what it asks of the spectrum: where it ends is said in words, not in nans."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator

Function = Callable[[Tensor], Tensor]
"""From eigenvalues, `(m,)` float64 on the host, to as many numbers."""

Name = Literal["sqrt", "log", "inverse-sqrt"]

Refusal = Callable[[float, float], str]
"""From an eigenvalue that is too small and from how far rounding may have moved it: one line that says so."""


@dataclass(frozen=True)
class Scalar:
    """f with the interval that it is defined on.

    Attributes:
        call: f itself.
        name: what messages call it.
        least: the end of f's domain; arguments that are smaller by no more than rounding count as equal to it.
        open: f is not defined at `least` itself.
        bound: no eigenvalue of the matrix is smaller: those that are, are by rounding.
        refusal: what is said about an eigenvalue outside the domain.
    """

    call: Function
    name: str = "f"
    least: float = -math.inf
    open: bool = False
    bound: float = -math.inf
    refusal: Refusal | None = None

    def of(self, nodes: Tensor, slack: float) -> Tensor:
        """f(nodes), `(m,)` float64, where rounding may have moved each by `slack`.

        Raises `ValueError` where f is not defined, not finite, or not a function of each number.
        """
        t = nodes.clamp(min=self.bound)
        lowest = float(t.min())
        outside = lowest < self.least - slack or (self.open and self.bound <= self.least >= lowest - slack)
        if outside and self.refusal is not None:
            raise ValueError(self.refusal(lowest, slack))
        t = t.clamp(min=self.least)
        values = self._called(t)
        if not bool(torch.isfinite(values).all()):
            i = int((~torch.isfinite(values)).nonzero()[0])
            raise ValueError(
                f"{self.name} is {float(values[i])} at {float(t[i]):.6g}, a Ritz value of the matrix: f has to be "
                "finite on the spectrum"
            )
        return values

    def change(self, nodes: Tensor, slack: float) -> Tensor:
        """`(m,)`: how far f(nodes) may be off where each node is by `slack`; inf where f ends within that."""
        floor = max(self.bound, self.least)
        t = nodes.clamp(min=floor)
        values = self._called(t)
        moved = [self._called(t + slack), self._called((t - slack).clamp(min=floor))]
        return torch.stack([(one - values).abs() for one in moved]).nan_to_num(nan=math.inf).amax(dim=0)

    def finite(self, t: float) -> bool:
        """Whether f is finite there."""
        return bool(torch.isfinite(self._called(torch.tensor([t], dtype=torch.float64))).all())

    def _called(self, t: Tensor) -> Tensor:
        values = torch.as_tensor(self.call(t.clone()), dtype=torch.float64)
        if values.shape != t.shape:
            raise ValueError(
                f"{self.name} gives {tuple(values.shape)} for {tuple(t.shape)} eigenvalues: it takes a float64 tensor "
                "and returns a number for each"
            )
        return values


def read(A: LinearOperator, f: Function | Name) -> Scalar:
    """What a user means by f on the spectrum of A. Raises `ValueError` for a name that is none."""
    bound = 0.0 if A.positive_semidefinite else -math.inf
    if callable(f):
        return Scalar(f, bound=bound)
    if f not in get_args(Name):
        raise ValueError(f"f is a function of a tensor of eigenvalues or one of {', '.join(get_args(Name))}, not {f!r}")
    call = {"sqrt": torch.sqrt, "log": torch.log, "inverse-sqrt": torch.rsqrt}[f]
    return Scalar(call, f, least=0.0, open=f != "sqrt", bound=bound, refusal=lambda t, slack: _refused(f, t, slack))


def _refused(name: str, lowest: float, slack: float) -> str:
    if lowest < -slack:
        return (
            f"{name} needs a positive semi-definite matrix: a Ritz value of {lowest:.3g} was met, beyond rounding "
            f"({slack:.1g}); A.shifted(s) with s > {-lowest:.3g} may be one"
        )
    return (
        f"{name} needs a positive definite matrix: a Ritz value of {lowest:.3g} was met, which is zero within rounding "
        f"({slack:.1g}); A.shifted(s) with s > {slack:.1g} may be one"
    )
