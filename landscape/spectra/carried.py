"""What every result carries beside its numbers: the self-check, the noise of the products, why a number is zero."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

import torch

from landscape.operators.check import Check
from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Footprint

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every result carries.

    Attributes:
        checked: what the operator's self-check of its derivatives has found; None where there was none.
        note: why the numbers are exactly zero, where they are; "" else.
        footprint: what the vectors that were kept took, and where; None where none were.
    """

    checked: Check | None = field(default=None, repr=False)
    note: str = field(default="", repr=False)
    footprint: Footprint | None = field(default=None, repr=False)

    def _is_zero(self) -> bool:
        """Whether the numbers are exactly zero, without an error."""
        return False

    def _remarks(self) -> list[str]:
        """What a reader must know beside the numbers."""
        untold = self.checked is not None and self.checked.verdict != "agrees"
        elsewhere = self.footprint is not None and self.footprint.where != "device"
        derivatives = [f"second derivatives {self.checked}"] * untold
        return [self.note] * bool(self.note) + derivatives + [str(self.footprint)] * elsewhere


@dataclass(frozen=True, kw_only=True)
class Measured(Result):
    """A result that says how exact the products were.

    Attributes:
        operator_noise: relative error of one product beyond rounding, `A.noise`; it is in the errors already.
    """

    operator_noise: float = field(default=0.0, repr=False)


Kind = TypeVar("Kind", bound=Result)


def carries_check(algorithm: Callable[Arguments, Kind]) -> Callable[Arguments, Kind]:
    """The same algorithm on an operator A, its result with what A's self-check has found and A's noise.

    Numbers that are exactly zero cost a product more, for the note: the matrix is zero, or they cancel.
    """

    @functools.wraps(algorithm)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Kind:
        result = algorithm(*args, **kwargs)
        A = args[0] if args else kwargs["A"]
        if not isinstance(A, LinearOperator):
            return result
        note = _why_zero(A) if result._is_zero() else ""
        result = replace(result, checked=A.checked, note=note)
        return replace(result, operator_noise=A.noise) if isinstance(result, Measured) else result

    return run


def _why_zero(A: LinearOperator) -> str:
    try:
        product = A @ A.random(1, "normal", torch.Generator().manual_seed(0))
    finally:
        A.release()
    if bool(product.any()):
        return "exactly zero, though the matrix is not: eigenvalues of both signs cancel, or these ones are zero"
    return f"the matrix is exactly zero{A.zero}"
