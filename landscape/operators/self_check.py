"""The self-check: what an operator claims about a function, held against differences on a few samples.

A claim is one product with a fixed random direction, and the same by central differences at a given step: of the
gradient for a Hessian, of the outputs for the Jacobian in a Gauss-Newton or Fisher matrix. It is tried in the model's
own precision first; what cannot be told there (rounding, kinks that a large step crosses) in a float64 copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from landscape.objective.noise import all_in_float64
from landscape.objective.objective import Objective
from landscape.objective.remembered import remembered
from landscape.operators.check import (
    CLOSER,
    WRONG,
    Check,
    Distance,
    WrongDerivatives,
    by_blocks,
    clearly_off,
    judge,
    relative,
    worst,
)
from landscape.operators.culprit import culprit
from landscape.operators.outline import clear_padding, inner, norm, uniform

_SEED = 0xC4EC
# Steps relative to |theta|. Small ones cross few kinks; in float32 below 1e-3 rounding and above 1e-2 truncation shows.
_FIRST = {torch.float64: 1e-7, torch.float32: 3e-3}
_NEXT = {torch.float64: 1e-6, torch.float32: 1e-2}
_SHORTEST, _LONGEST = 1e-8, 3e-2  # in float64
_ASIDE = 1e-2
_ROUNDINGS = 1e3  # that two values must be apart for their difference to say something
# What a block that is off counts beside the whole: in float32 rounding and truncation show in small blocks.
_COARSE, _FINE = 0.01, 0.1


_KINKED = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


class Claim:
    """One product of an operator with a direction, and the same by differences.

    Attributes:
        decides: whether what cannot be told of it leaves the operator in doubt.
        smooth: whether kinks of the model leave its differences as they are.
        blocks: sizes of the parts of the product that are looked at one by one, such as those of the parameters.
    """

    decides: ClassVar[bool] = True
    smooth: ClassVar[bool] = False
    blocks: Sequence[int] = ()

    def __init__(self, objective: Objective, v: Tensor) -> None:
        raise NotImplementedError

    def product(self) -> Tensor:
        """As the operator makes it, any shape."""
        raise NotImplementedError

    def difference(self, ahead: float, behind: float) -> Tensor:
        """By a difference along the direction between two steps from theta, in the same shape."""
        raise NotImplementedError


Claims = Sequence[type[Claim]]


def self_check(objective: Objective, claims: Claims, operations: Hashable = None) -> Check | None:
    """The worst verdict on the claims about an objective, once per model as it is built; None where `check` is False.

    operations: what is particular about the data, where it is not the first batch that everything is told from.
    Raises `WrongDerivatives` with the name of the module when one is off.
    """
    if objective.check is False or not claims:
        return None

    def find() -> Check | None:
        """On the data of each rank."""
        own = objective.alone()
        return worst(objective.gathered(lambda: _worst_of(own, claims)))

    key = (tuple(claims), objective.structure(), operations, objective.ranks.size)
    always = objective.check == "always"
    found = find() if always else remembered(objective.module, "second derivatives", key, find, objective.ranks)
    if found is not None and found.verdict == "off":
        raise WrongDerivatives(_advice(found))
    return found


def direction(objective: Objective, seed: int = _SEED) -> Tensor:
    """A fixed random unit vector `(n,)`, the same on all ranks and in all precisions.

    Zero in the rows of embeddings that torch holds fixed (`padding_idx`): their gradient is masked, not found.
    """
    v = uniform(objective, torch.Generator().manual_seed(seed))
    clear_padding(objective, v)
    v = v.to(device=objective.device, dtype=objective.dtype)
    return v / (norm(objective, v) or 1.0)


def difference(objective: Objective, v: Tensor, ahead: float, behind: float, function: Callable[[], Tensor]) -> Tensor:
    """(function at theta + ahead v - function at theta + behind v) over the distance that was really set."""
    theta, values, places = objective.theta(), [], []
    rounds = objective.dtype != torch.float64  # the steps are rounded with the parameters that they are added to
    for step in (ahead, behind):
        with objective.at(torch.add(theta, v, alpha=step)):
            places += [objective.theta()] if rounds else []
            values.append(function())
    distance = inner(objective, places[0] - places[1], v) if rounds else ahead - behind
    return (values[0] - values[1]) / distance if distance else torch.full_like(values[0], torch.nan)


def seen(slope: Tensor, expected: Tensor, distance: float, rounding: float) -> Tensor:
    """A slope by two values; nan where these are, or ought to be, within a thousand roundings: it says nothing."""
    apart = max(float(slope.abs()), float(expected)) * abs(distance)
    return slope if apart > _ROUNDINGS * rounding else torch.full_like(slope, torch.nan)


def _worst_of(objective: Objective, claims: Claims) -> Check | None:
    try:
        few = objective.sample()
        v = direction(few)
    except Exception as error:
        return _not_made(error)
    few.check = False
    verdicts = [(claim, _verdict(few, claim, v)) for claim in claims]
    return worst(check for claim, check in verdicts if claim.decides or check.verdict == "off")


def _not_made(error: Exception) -> Check:
    """What fails in the check fails in the product itself as well, which says so; else it is no product's fault."""
    return Check("untold", note=f"the check could not be made ({type(error).__name__}: {_first_line(error)})")


def _verdict(few: Objective, claim: type[Claim], v: Tensor) -> Check:
    try:
        found = _tell(few, claim, v)
    except Exception as error:
        return _not_made(error)
    if found.verdict == "off":
        with ExitStack() as stack:
            name = f"{type(few.module).__name__} (the module could not be told)"
            with suppress(Exception):  # whatever a model raises whose parts are run by themselves
                if found.dtype == torch.float64:
                    theta, few = few.theta(), few.converted(torch.float64)
                    stack.enter_context(few.at(theta))
                    stack.enter_context(all_in_float64())
                name = (
                    culprit(few) if not few.sharded else f"{type(few.module).__name__} (sharded: no module by itself)"
                )
            return replace(found, module=name)
    return found


def _tell(few: Objective, claim: type[Claim], v: Tensor) -> Check:
    """In the model's own precision; then float64 differences; then a float64 product as well."""
    scale = norm(few, few.theta()) or 1.0
    own = claim(few, v)
    product = own.product()
    half = any(p.is_floating_point() and p.dtype.itemsize < 4 for p in few.module.parameters())
    first = Check("untold", note="half precision")
    if not half and (claim.smooth or few.dtype == torch.float64 or not _has_kinks(few)):
        first = judge(product, _central(own), [scale * _FIRST[few.dtype]], _distance(own, _COARSE))
    if first.verdict == "agrees":
        return first
    try:
        double = few.converted(torch.float64)
        with double.at(few.theta()), all_in_float64():
            other = claim(double, v.double())
            near = judge(product.double(), _central(other), [scale * _FIRST[torch.float64]], _distance(other, _FINE))
            if near.verdict == "agrees":
                return near
            found = _search(other, scale)
            return found if "kink" not in found.note else _beside(found, double, claim, v.double(), scale)
    except Exception as error:
        if half:
            return replace(first, note=f"half precision, and no float64 copy of it ({_first_line(error)})")
        steps = [scale * _NEXT[few.dtype], scale * _FIRST[few.dtype], scale * _FIRST[few.dtype] / 3]
        found = _unless_on_a_kink(judge(product, _central(own), steps), own, steps[0])
        # a large step crosses many kinks, and many of them look smooth
        return found if found.verdict != "off" or clearly_off(found) else replace(found, verdict="untold")


def _has_kinks(few: Objective) -> bool:
    """Whether steps that float32 needs will cross kinks, as far as modules tell; float64 is asked at once then."""
    return few.device.type != "mps" and any(isinstance(m, _KINKED) for m in few.module.modules())


def _distance(claim: Claim, share: float) -> Distance:
    """Of the whole, and that share of the distance of the worst block."""
    if len(claim.blocks) < 2:
        return relative
    worst_block = by_blocks(claim.blocks)
    return lambda a, b: max(relative(a, b), share * worst_block(a, b))


def _central(claim: Claim) -> Callable[[float], Tensor]:
    return functools.cache(lambda step: claim.difference(step, -step))


def _search(claim: Claim, scale: float) -> Check:
    """Two small steps; a smaller one, as a kink may lie between; then two with the length that the noise asks for."""
    product, central = claim.product(), _central(claim)
    small, next_, shortest = (scale * step for step in (_FIRST[torch.float64], _NEXT[torch.float64], _SHORTEST))
    coarse, all_blocks = _distance(claim, _COARSE), _distance(claim, 1.0)
    found = judge(product, central, [small, next_], coarse)
    if found.verdict == "untold":
        found = judge(product, central, [shortest, small], coarse)
    if found.verdict == "agrees" and all_blocks(product, central(small)) > WRONG:  # a small block may be off
        blocks = judge(product, central, [small, next_], all_blocks)
        blocks = _unless_on_a_kink(blocks, claim, small, all_blocks)
        return blocks if blocks.verdict == "off" else found
    if found.verdict == "off":
        return _unless_on_a_kink(found, claim, small, coarse)
    if found.verdict == "agrees" or not bool(torch.isfinite(product).all()):
        return found
    if CLOSER * relative(central(small) * small, central(shortest) * shortest) < 1.0:  # the same jump at any step
        return replace(found, note="on a kink: the first derivative jumps at these parameters")
    # what is noise in the values moves a difference by noise / step
    noise = float((central(small) - central(next_)).norm()) * small
    longer = noise / (0.3 * WRONG * max(float(product.norm()), torch.finfo(product.dtype).tiny))
    if not next_ < 3 * longer <= _LONGEST * scale:
        return found
    return judge(product, central, [longer, 3 * longer])


def _unless_on_a_kink(found: Check, claim: Claim, step: float, distance: Distance = relative) -> Check:
    """What is off by no more than the slopes on both sides of the parameters differ is not told."""
    if found.verdict != "off":
        return found
    if CLOSER * distance(claim.difference(step, 0.0), claim.difference(step, -step)) < found.difference:
        return found
    return replace(found, verdict="untold", note="on a kink: slopes differ on its sides")


def _beside(found: Check, objective: Objective, claim: type[Claim], v: Tensor, scale: float) -> Check:
    """A kink at the parameters says nothing of the model's derivatives: those are tried beside it."""
    with objective.at(objective.theta() + _ASIDE * scale * direction(objective, _SEED + 1)):
        other = _search(claim(objective, v), scale)
    if other.verdict == "off":
        return other
    return replace(found, note=f"{found.note}; {_ASIDE:.0%} beside them {other}")


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
