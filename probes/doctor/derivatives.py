"""Whether a problem's derivatives can be trusted: layers without second ones, self-checks, determinism, noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from probes.doctor.finding import Finding, finding
from probes.doctor.layers import without_second_derivative
from probes.errors import first_few, one_line
from probes.numbers import short
from probes.session import OPERATORS, build_operator

if TYPE_CHECKING:
    import torch

    from landscape import Objective

_SAME = 64.0  # roundings between two evaluations of one function on a device that sums in another order each time
_ALIKE = 60  # characters that two failures of one reason have in common: what follows are numbers


def examine_derivatives(objective: Objective) -> Iterator[Finding]:
    """Layers, a product of each kind with its self-check, determinism, noise."""
    yield finding("second derivatives", partial(_layers, objective))
    reason = ""
    for kind in OPERATORS:
        found = finding(f"self-check {kind}", partial(self_check, objective, kind))
        same = found.status == "FAIL" and found.text[:_ALIKE] == reason
        yield replace(found, text="fails for the same reason") if same else found
        reason = found.text[:_ALIKE] if found.status == "FAIL" else reason
    yield finding("determinism", partial(determinism, objective))
    yield finding("noise", partial(noise, objective))


def _layers(objective: Objective) -> Finding | str:
    missing = without_second_derivative(objective)
    if not missing:
        return "every layer can be differentiated twice"
    text = f"none in {first_few(missing)}: use FiniteDifferenceHessian, or another implementation of that layer"
    return Finding("second derivatives", text, "FAIL", {"layers": missing})


def self_check(objective: Objective, kind: str) -> Finding:
    """One product of that kind on a few samples, and what its self-check says. Only the Hessian's failure is one."""
    import torch

    what = f"self-check {kind}"
    few = objective.sample(32)
    try:
        A = build_operator(few, kind, torch.Generator().manual_seed(0))
        product = A @ A.random(1, "normal", torch.Generator().manual_seed(0))[:, 0]
    except (ValueError, TypeError, NotImplementedError) as error:
        text = f"does not apply: {one_line(error, limit=300)}"
        return Finding(what, text, "FAIL" if kind == "hessian" else "note")
    except Exception as error:  # a user's model may raise anything
        return Finding(what, one_line(error, limit=400), "FAIL")
    if not bool(torch.isfinite(product).all()):
        return Finding(what, "a product is not finite: the parameters, the data or the loss hold nan or inf", "FAIL")
    if not bool(product.any()):
        return Finding(what, f"the matrix is exactly zero{A.zero}", "note")
    check = A.checked
    if check is None:
        return Finding(what, "a product works; it has no self-check", "ok")
    values = {"verdict": check.verdict, "difference": check.difference}
    return Finding(what, str(check), "ok" if check.verdict == "agrees" else "note", values)


def determinism(objective: Objective) -> Finding:
    """Whether the loss and its gradient come out the same again, also from another state of the random generators."""
    import torch

    first = objective.value_and_gradient()
    again = objective.value_and_gradient()
    with torch.random.fork_rng():
        torch.manual_seed(0x5EED)
        other = objective.value_and_gradient()
    apart = {"again": _apart(first, again), "other_seed": _apart(first, other)}
    worst, allowed = max(apart.values()), _SAME * objective.rounding
    if worst == 0.0:
        return Finding("determinism", "loss and gradient are the same again, to the last bit", "ok", apart)
    if worst <= allowed:
        text = f"loss and gradient are the same again up to rounding ({short(worst, 2)})"
        return Finding("determinism", text, "ok", apart)
    own = "the model, the loss or the data draws from a generator of its own, or keeps a state"
    why = own if apart["again"] > allowed else "it depends on the seed"
    text = f"loss or gradient come out {short(worst, 2)} (relative) apart the second time: {why}"
    return Finding("determinism", f"{text}; nothing that is measured on it means much", "FAIL", apart)


def _apart(a: tuple[float, torch.Tensor], b: tuple[float, torch.Tensor]) -> float:
    """The larger of the relative distances of two losses and of their gradients."""
    scale = float(a[1].double().norm())
    slope = float((a[1].double() - b[1].double()).norm()) / scale if scale else 0.0
    return max(abs(a[0] - b[0]) / abs(a[0]) if a[0] else 0.0, slope)


def noise(objective: Objective) -> Finding:
    """The measured noise of the model's arithmetic."""
    found = objective.noise
    if not found:
        return Finding("noise", f"none beyond the rounding of {_name(objective.dtype)}", "ok", {"noise": 0.0})
    text = f"{short(found, 2)}: relative error of a product, which bounds what tolerances can be reached"
    return Finding("noise", text, "note", {"noise": found})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
