"""What a self-check of second derivatives has found: one product held against differences, at two step sizes.

A product is wrong where the two steps agree with each other and not with it. Where they do not agree (rounding, a kink
at the parameters) it cannot be told, which is a note and never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WRONG = 1e-3  # relative distance of a product from differences that is no rounding
CLOSER = 10.0  # times nearer to each other than to the product: two steps that say so


class WrongDerivatives(RuntimeError):
    """A second derivative of the model (or its gradient) disagrees with differences; the text names the module."""


@dataclass(frozen=True)
class Check:
    """The verdict of a self-check.

    Attributes:
        verdict: "agrees"; "untold" when it could not be told; "off" when the product is wrong.
        difference: relative distance of the product from the nearer of the differences; nan when there was none.
        steps: relative distance of two step sizes from each other; nan when one step was enough.
        dtype: in which it was told.
        note: why it could not be told, in words; "" else.
        module: the name of the module that is wrong, where the verdict is "off".
    """

    verdict: Literal["agrees", "untold", "off"]
    difference: float = math.nan
    steps: float = math.nan
    dtype: torch.dtype | None = None
    note: str = ""
    module: str | None = None

    def __str__(self) -> str:
        if self.verdict == "untold":
            return f"not told: {self.note}"
        dtype = str(self.dtype).removeprefix("torch.")
        if self.verdict == "agrees":
            return f"agrees with differences to {self.difference:.1g} ({dtype})"
        return f"off by {self.difference:.2g} ({dtype}) in {self.module}"


def worst(checks: Iterable[Check | None]) -> Check | None:
    """What a matrix made of several is known to be: the worst of its parts; None when none was checked."""
    order = {"agrees": 0, "untold": 1, "off": 2}
    found = [check for check in checks if check is not None]
    return max(found, key=lambda check: order[check.verdict], default=None)


def judge(product: Tensor, difference: Callable[[float], Tensor], steps: Sequence[float]) -> Check:
    """Hold a product against `difference(step)`, the same by differences, at steps in turn until it can be told.

    It agrees with the first difference within 1e-3 of it. It is off when two neighbouring steps agree with each other
    ten times better than with the product, and neither with it.
    """
    dtype, told = product.dtype, Check("untold", dtype=product.dtype, note="the product is not finite")
    if not bool(torch.isfinite(product).all()):
        return told
    previous: Tensor | None = None
    nearest, steadiest = math.inf, math.inf
    for step in steps:
        found = difference(step)
        if not bool(torch.isfinite(found).all()):
            previous = None
            continue
        distance = relative(product, found)
        if distance <= WRONG:
            return Check("agrees", distance, dtype=dtype)
        if previous is not None:
            before, apart = relative(product, previous), relative(found, previous)
            nearest, steadiest = min(nearest, before, distance), min(steadiest, apart)
            if CLOSER * apart <= min(before, distance):
                return Check("off", min(before, distance), apart, dtype)
        previous = found
    note = f"differences at several step sizes are {steadiest:.1g} apart (a kink at the parameters, or rounding)"
    return Check("untold", nearest, steadiest, dtype, note)


def clearly_off(check: Check) -> bool:
    """Off by so much more than the steps differ that no smear of many kinks is meant: for float32 alone."""
    return check.verdict == "off" and 3 * CLOSER * check.steps <= check.difference


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| over the larger norm; 0 for two zeros."""
    size = max(float(a.double().norm()), float(b.double().norm()))
    return float((a.double() - b.double()).norm()) / size if size else 0.0
