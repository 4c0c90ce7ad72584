"""Saddle-free Newton against a plain reference."""

import numpy as np
import pytest
from newton_cases import PROBLEMS, by_rule, check_step_by_step, generator

from solvers import SaddleFreeNewton


def saddle_free_reference(fgh, w, damping, rule, rank=None):
    def step(g, H, damping):
        values, U = np.linalg.eigh(H)
        order = np.argsort(-np.abs(values))
        absolute = np.abs(values)
        if rank is not None:
            absolute[order[rank:]] = absolute[order[rank - 1]]
        h = -U @ ((U.T @ g) / (absolute + damping))
        return h, -0.5 * g @ h

    while True:
        f, g, H = fgh(w)
        w, damping = by_rule(rule, f, fgh, w, damping, lambda c, g=g, H=H: step(g, H, c))
        yield w, damping


CASES = {
    **{
        f"saddle-free {rule}": (
            lambda p, rule=rule: SaddleFreeNewton(p, 1.0, rule=rule),
            lambda fgh, w, rule=rule: saddle_free_reference(fgh, w, 1.0, rule),
        )
        for rule in ("doubling", "ratio", "fixed")
    },
    "saddle-free rank": (
        lambda p: SaddleFreeNewton(p, 1.0, rank=4, tol=1e-12, generator=generator()),
        lambda fgh, w: saddle_free_reference(fgh, w, 1.0, "doubling", rank=4),
    ),
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)
