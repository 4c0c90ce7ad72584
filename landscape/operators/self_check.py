"""The self-check: what an operator claims about a function, held against differences on a few samples.

A claim is one product with a fixed random direction, and the same by central differences at a given step: of the
gradient for a Hessian, of the outputs for the Jacobian in a Gauss-Newton or Fisher matrix. It is tried in the model's
own precision first; what cannot be told there (rounding, kinks that a large step crosses) in a float64 copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.objective.remembered import remembered
from landscape.operators.check import WRONG, Check, WrongDerivatives, clearly_off, judge, relative, worst
from landscape.operators.culprit import culprit

SAMPLES = 32
_SEED = 0xC4EC
# Steps relative to |theta|. Small ones cross few kinks; in float32 below 1e-3 rounding and above 1e-2 truncation shows.
_FIRST = {torch.float64: 1e-7, torch.float32: 3e-3}
_NEXT = {torch.float64: 1e-6, torch.float32: 1e-2}
_SHORTEST, _LONGEST = 1e-8, 3e-2  # in float64


class Claim(Protocol):
    """One product of an operator with a direction, and the same by differences."""

    def product(self) -> Tensor:
        """As the operator makes it, any shape."""
        ...

    def difference(self, step: float) -> Tensor:
        """By central differences along the direction at +- step, in the same shape."""
        ...


Claims = Sequence[Callable[[Objective, Tensor], Claim]]


def self_check(objective: Objective, claims: Claims) -> Check | None:
    """The worst verdict on the claims about an objective, once per model as it is built; None where `check` is False.

    Raises `WrongDerivatives` with the name of the module when one is off.
    """
    if objective.check is False or not claims:
        return None
    find = lambda: worst(_verdict(objective, claim) for claim in claims)  # noqa: E731
    if objective.check == "always":
        found = find()
    else:
        key = (tuple(claims), objective.structure())
        found = remembered(objective.module, "second derivatives", key, find)
    if found is not None and found.verdict == "off":
        raise WrongDerivatives(_advice(found))
    return found


def direction(objective: Objective) -> Tensor:
    """A fixed random unit vector `(n,)`, the same on all ranks and in all precisions."""
    v = torch.randn(objective.size, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float32).double()
    return (v / v.norm()).to(device=objective.device, dtype=objective.dtype)


def central(objective: Objective, v: Tensor, step: float, function: Callable[[], Tensor]) -> Tensor:
    """(function at theta + step v - function at theta - step v) over the distance that was really set."""
    theta, values, places = objective.theta(), [], []
    for sign in (1.0, -1.0):
        with objective.at(theta + sign * step * v):
            places.append(objective.theta())
            values.append(function())
    distance = float((places[0] - places[1]).double() @ v.double())
    return (values[0] - values[1]) / distance if distance else torch.full_like(values[0], torch.nan)


def _verdict(objective: Objective, claim: Callable[[Objective, Tensor], Claim]) -> Check:
    try:
        few = objective.sample(SAMPLES)
        few.check = False
        found = _tell(few, claim, direction(few))
    except Exception as error:  # what fails here fails in the product itself, which says so; else it is no product's
        first = (str(error).splitlines() or [""])[0]
        return Check("untold", note=f"the check could not be made ({type(error).__name__}: {first})")
    if found.verdict == "off":
        with ExitStack() as stack:
            if found.dtype == torch.float64:
                theta, few = few.theta(), few.converted(torch.float64)
                stack.enter_context(few.at(theta))
            return replace(found, module=culprit(few))
    return found


def _tell(few: Objective, claim: Callable[[Objective, Tensor], Claim], v: Tensor) -> Check:
    """In the model's own precision; then float64 differences; then a float64 product as well."""
    scale = float(few.theta().double().norm()) or 1.0
    own = claim(few, v)
    product = own.product()
    half = any(p.dtype.itemsize < 4 for p in few.module.parameters())
    first = Check("untold", note="half precision")
    if not half:
        first = judge(product, own.difference, [scale * _FIRST[few.dtype]])
    if first.verdict == "agrees":
        return first
    if few.dtype == torch.float64 and not half:
        return _search(product, own.difference, scale)
    try:
        double = few.converted(torch.float64)
        with double.at(few.theta()):
            other = claim(double, v.double())
            return _in_float64(product.double(), other, scale)
    except Exception as error:
        if half:
            return replace(first, note=f"half precision, and no float64 copy of it ({_first_line(error)})")
        steps = [scale * _FIRST[few.dtype], scale * _NEXT[few.dtype]]
        found = judge(product, own.difference, steps)
        return found if found.verdict != "off" or clearly_off(found) else replace(found, verdict="untold")


def _in_float64(product: Tensor, other: Claim, scale: float) -> Check:
    distance = relative(product, other.difference(scale * _FIRST[torch.float64]))
    if distance <= WRONG:
        return Check("agrees", distance, dtype=torch.float64)
    return _search(other.product(), other.difference, scale)


def _search(product: Tensor, difference: Callable[[float], Tensor], scale: float) -> Check:
    """Two small steps; a smaller one, as a kink may lie between; then two with the length that the noise asks for."""
    difference = functools.cache(difference)
    small, next_, shortest = (scale * step for step in (_FIRST[torch.float64], _NEXT[torch.float64], _SHORTEST))
    found = judge(product, difference, [small, next_])
    if found.verdict == "untold":
        found = judge(product, difference, [shortest, small])
    if found.verdict != "untold" or not bool(torch.isfinite(product).all()):
        return found
    # what is noise in the values moves a difference by noise / step
    noise = float((difference(small) - difference(next_)).norm()) * small
    longer = noise / (0.3 * WRONG * max(float(product.norm()), torch.finfo(product.dtype).tiny))
    if not next_ < 3 * longer <= _LONGEST * scale:
        return found
    return judge(product, difference, [longer, 3 * longer])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _advice(found: Check) -> str:
    return (
        f"the second derivatives of {found.module} are not those of its function: a product is {found.difference:.2g} "
        f"(relative) off central differences, which agree with each other to {found.steps:.1g}. It holds an operation "
        "whose backward cannot be differentiated rightly (a custom autograd function, a fused kernel, a straight-"
        "through or scaled gradient): write it in torch operations; or use FiniteDifferenceHessian, where the "
        "gradient is that of the loss; check=False of the Objective measures all the same"
    )
