"""What solvers that look at their trial points share: what they report of a step, and the rules of acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRIES = 40
SMALLEST = 1e-10  # of constants that are halved
STALLED = 100.0  # roundings of f
ACCEPT, GOOD = 0.05, 0.9

Rule = Literal["doubling", "ratio", "fixed"]


@dataclass(frozen=True)
class Step:
    """What a step did.

    Attributes:
        accepted: the parameters have moved.
        loss, new_loss: f before, and at the last point that was tried (nan or inf where it is not finite).
        decrease: -m(h), what the model promised.
        ratio: (f - f+) / decrease; nan where decrease is 0.
        M: for the next step; `used`: in this one's last model.
        size: coordinates of the subspace.
        gradient_norm: ||g_S|| before.
        lowest: smallest eigenvalue of the block H_SS.
        length: ||h||.
        products: with the Hessian; 0 where blocks were given.
        tries: trial points.
        stalled: the model's decrease was below the rounding of f.
        hard_case: as in `CubicStep`.
    """

    accepted: bool
    loss: float
    new_loss: float
    decrease: float
    ratio: float
    M: float
    used: float
    size: int
    gradient_norm: float
    lowest: float
    length: float
    products: int
    tries: int
    stalled: bool
    hard_case: bool


def by_decrease(rule: Rule, loss: float, new: float, decrease: float, used: float) -> tuple[bool, float]:
    """(accepted, next constant) for a constant that shortens the step as it grows; see `solvers.second_order.sscn`."""
    if rule == "fixed":
        return True, used
    if rule == "doubling":
        accepted = loss - new >= decrease
        return accepted, max(0.5 * used, SMALLEST) if accepted else 2.0 * used
    ratio = (loss - new) / decrease
    following = max(0.5 * used, SMALLEST) if ratio >= GOOD else used if ratio >= ACCEPT else 1.5 * used
    return ratio >= ACCEPT and new <= loss, following
