"""The report of a step of a Newton-type solver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NewtonStep:
    """What a step did.

    Attributes:
        accepted: the parameters have moved.
        loss, new_loss: f before, and at the last point that was tried (nan or inf where it is not finite).
        decrease: -m(h), what the model promised.
        ratio: (f - f+) / decrease; nan where decrease is 0.
        M: the solver's constant, whatever its name, for the next step; `used`: in this one's last model.
        size: dimension of the space in which the Hessian was known: n, or that of the subspace or Krylov space.
        gradient_norm: before, in the subspace.
        lowest: smallest eigenvalue of the Hessian in that space; nan where none was seen.
        length: of the step.
        products: with the Hessian; 0 where blocks were given.
        tries: trial points.
        stalled: the model's decrease was below the rounding of f.
        hard_case: as in `CubicStep`.
        shift: what was added to the (absolute) eigenvalues of the Hessian; nan for `SSCN`.
        indefinite: the Hessian had a negative eigenvalue in that space, beyond rounding. Methods for convex losses say
            in their modules what they do then.
        lr: what scaled the step.
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
    shift: float
    indefinite: bool
    lr: float
