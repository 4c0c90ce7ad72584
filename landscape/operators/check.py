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
_SMALL = 1e-3  # of the norm of the whole: below it a block is rounding
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


Distance = Callable[[Tensor, Tensor], float]


def judge(
    product: Tensor, difference: Callable[[float], Tensor], steps: Sequence[float], distance: Distance | None = None
) -> Check:
    """Hold a product against `difference(step)`, the same by differences, at steps in turn until it can be told.

    It agrees with a difference within 1e-3 of it. It is off when two neighbouring steps agree with each other ten
    times better than with the product, and neither with it. `distance` is `relative` by default.
    """
    distance = distance or relative
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
        away = distance(product, found)
        if away <= WRONG:
            return Check("agrees", away, dtype=dtype)
        if previous is not None:
            before, apart = distance(product, previous), distance(found, previous)
            nearest, steadiest = min(nearest, before, away), min(steadiest, apart)
            if CLOSER * apart <= min(before, away):
                return Check("off", min(before, away), apart, dtype)
        previous = found
    note = f"differences at several step sizes are {steadiest:.1g} apart (a kink at the parameters, or rounding)"
    return Check("untold", nearest, steadiest, dtype, note)


def clearly_off(check: Check) -> bool:
    """Off by so much more than the steps differ that no smear of many kinks is meant: for float32 alone."""
    return check.verdict == "off" and 3 * CLOSER * check.steps <= check.difference


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| over the larger norm; 0 for two zeros."""
    a, b = (t.double() if t.device.type != "mps" else t.cpu().double() for t in (a, b))
    size = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def by_blocks(sizes: Sequence[int]) -> Distance:
    """The largest distance of any block of these sizes: a small layer that is wrong does not show in the whole.

    Relative to the block's own norm; blocks below a thousandth of the whole's norm to that.
    """

    def distance(a: Tensor, b: Tensor) -> float:
        a, b = (t.double() if t.device.type != "mps" else t.cpu().double() for t in (a, b))
        norms = [torch.stack([block.norm() for block in t.split(list(sizes))]) for t in (a, b, a - b)]
        floor = _SMALL * torch.maximum(norms[0].norm(), norms[1].norm())
        own = torch.maximum(torch.maximum(norms[0], norms[1]), floor)
        return float((norms[2] / own).max()) if float(floor) else 0.0

    return distance
