"""Coordinate descent against a plain reference."""

import numpy as np
import pytest
import torch
from newton_cases import PROBLEMS, check_step_by_step, generator, logistic

from solvers import CoordinateDescent


def coordinate_reference(fgh, w, tau, generator, keep):
    L = 1.0
    while True:
        S = torch.randperm(len(w), generator=generator)[:tau].numpy()
        f, g, _ = fgh(w)
        L = L if keep else 1.0
        while True:
            trial = w.copy()
            trial[S] -= g[S] / L
            if f - fgh.f(trial) >= g[S] @ g[S] / (2 * L):
                break
            L *= 2
        w = trial
        L /= 2
        yield w, L if keep else 1.0


CASES = {
    **{
        f"coordinate descent {keep}": (
            lambda p, keep=keep: CoordinateDescent(p, 4, keep=keep, generator=generator()),
            lambda fgh, w, keep=keep: coordinate_reference(fgh, w, 4, generator(), keep),
        )
        for keep in (False, True)
    }
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)


def test_a_constant_too_small_does_not_hold_up_at_rounding_level():
    """Kept from far away it may be too small where losses can no longer say so: it is raised within the step."""
    problem = logistic()
    solver = CoordinateDescent(problem.parameters, 6, keep=True, generator=generator())
    for _ in range(200):
        solver.step(problem.closure)
    assert solver.last.stalled
    assert np.linalg.norm(problem.fgh.g(problem.flat())) < 1e-11


def test_keeping_the_constant_saves_trial_points():
    tries = {}
    for keep in (False, True):
        problem = logistic(n=40)
        solver = CoordinateDescent(problem.parameters, 20, keep=keep, L=1e-3, generator=generator())
        tries[keep] = 0
        for _ in range(30):
            solver.step(problem.closure)
            tries[keep] += solver.last.tries
            assert solver.last.products == 0
        assert solver.param_groups[0]["L"] == 1e-3 or keep
    assert tries[True] < 0.5 * tries[False]
